#include "model_path.h"

#include <array>
#include <fmt/format.h>
#include <system_error>

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTinyName = "tiny";

bool has_weights(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / "model.safetensors", error);
}

}  // namespace

Result<fs::path> find_model(const std::optional<std::string>& name, const fs::path& executable) {
  std::error_code error;
  // A folder that happens to be called "tiny" is still reached as ./tiny.
  if (name && *name != kTinyName) {
    if (!fs::exists(*name, error)) {
      return Error{ErrorCode::kNotFound, fmt::format("there is no model at {}", *name)};
    }
    return fs::path(*name);
  }
  const fs::path folder = executable.parent_path();
  const std::array candidates = {
      folder / "models" / kTinyName,
      folder.parent_path().parent_path() / "models" / kTinyName,
      folder.parent_path() / "share" / "fovea" / "models" / kTinyName,
  };
  for (const fs::path& candidate : candidates) {
    if (has_weights(candidate)) return candidate;
  }
  return Error{ErrorCode::kNotFound,
               name ? "the tiny model is not part of this installation; give --model DIR"
                    : "no model given; add --model DIR with the folder of a Moondream checkpoint"};
}

fs::path executable_path() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error);
}

}  // namespace fovea::cli
