#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <optional>

#include "args.h"
#include "commands.h"
#include "serve_args.h"

namespace fovea::cli {

/// The options of `fovea serve`.
CLI::App& add_serve(CLI::App& app, ServeArgs& args);

/// `fovea serve`: answers over HTTP until it is told to stop.
int run_serve(const ServeArgs& args, Terminal& terminal);

}  // namespace fovea::cli
