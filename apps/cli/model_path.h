#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "fovea/result.h"

#include "models_folder.h"

namespace fovea::cli {

/// Where find_model looks.
struct ModelPlaces {
  std::filesystem::path executable;       ///< the program's own path
  std::optional<std::string> models_dir;  ///< as the command line says
  Environment environment;
};

/// Where the model is. A name that is a path stays one. "tiny", and no name at all, mean the small
/// model in the box, looked for beside the executable, in the source tree that the executable was
/// built in, and in the installed share folder. A name that `fovea pull` takes is looked for among
/// the pulled models; when it is not there, the error tells how to get it.
Result<std::filesystem::path> find_model(const std::optional<std::string>& name,
                                         const ModelPlaces& places);

/// The folder of the model in the box; nothing when it is not part of this installation.
std::optional<std::filesystem::path> find_tiny(const std::filesystem::path& executable);

/// What clients call the model that find_model found under this name: a pulled model's name as it
/// was given, the folder's name of one that is a path, "tiny" for the one in the box.
std::string model_label(const std::optional<std::string>& name, const std::filesystem::path& found);

/// The path of the running program; empty where the system does not tell.
std::filesystem::path executable_path();

}  // namespace fovea::cli
