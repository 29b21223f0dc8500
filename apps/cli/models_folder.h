#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "fovea/result.h"

namespace fovea::cli {

/// A variable of the process's environment; nothing when it is not set, or empty. May itself be
/// empty: then nothing is set.
using Environment = std::function<std::optional<std::string>(const char* name)>;

/// The variable, or nothing.
std::optional<std::string> variable(const Environment& environment, const char* name);

/// Where pulled models are: what the command line says, else $FOVEA_MODELS, else "fovea/models" in
/// the user's data folder ($XDG_DATA_HOME, or ~/.local/share). Error: kFailedPrecondition when none
/// of these is known.
Result<std::filesystem::path> models_folder(const std::optional<std::string>& option,
                                            const Environment& environment);

}  // namespace fovea::cli
