#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace fovea::cli {

/// What to say of arguments that CLI11 did not take. `app` is the one that was to parse them; its
/// own messages count arguments, list them last first, and name neither the command nor a way out.
std::string usage_message(const CLI::ParseError& error, const CLI::App& app);

}  // namespace fovea::cli
