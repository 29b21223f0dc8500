#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "fovea/result.h"

namespace fovea::cli {

/// Where the model is. A name that is a path stays one; "tiny", and no name at all, mean the small
/// model in the box, looked for beside the executable, in the source tree that the executable was
/// built in, and in the installed share folder. `executable` is the program's own path.
Result<std::filesystem::path> find_model(const std::optional<std::string>& name,
                                         const std::filesystem::path& executable);

/// The path of the running program; empty where the system does not tell.
std::filesystem::path executable_path();

}  // namespace fovea::cli
