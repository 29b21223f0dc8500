#include "models_folder.h"

namespace fovea::cli {

namespace fs = std::filesystem;

std::optional<std::string> variable(const Environment& environment, const char* name) {
  return environment ? environment(name) : std::nullopt;
}

Result<fs::path> models_folder(const std::optional<std::string>& option,
                               const Environment& environment) {
  if (option) return fs::path(*option);
  if (const auto models = variable(environment, "FOVEA_MODELS")) return fs::path(*models);
  // The specification of these folders has relative ones ignored.
  const auto data = variable(environment, "XDG_DATA_HOME");
  if (data && fs::path(*data).is_absolute()) return fs::path(*data) / "fovea" / "models";
  if (const auto home = variable(environment, "HOME")) {
    return fs::path(*home) / ".local" / "share" / "fovea" / "models";
  }
  return Error{ErrorCode::kFailedPrecondition,
               "no folder for models is known: give --models-dir, or set FOVEA_MODELS"};
}

}  // namespace fovea::cli
