#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "pull_args.h"

namespace fovea::cli {

/// The commands pull and models, with their options.
CLI::App& add_pull(CLI::App& app, PullArgs& args);
CLI::App& add_models(CLI::App& app, ModelsArgs& args);

/// --models-dir
void add_models_dir_option(CLI::App& app, std::optional<std::string>& models_dir);

}  // namespace fovea::cli
