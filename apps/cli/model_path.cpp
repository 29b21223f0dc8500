#include "model_path.h"

#include <array>
#include <fmt/format.h>
#include <system_error>

#include "hub/known_models.h"
#include "hub/model_store.h"
#include "utf8.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTinyName = "tiny";

bool has_weights(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / "model.safetensors", error);
}

Result<fs::path> find_pulled(const std::string& name, const ModelPlaces& places) {
  const Error absent{ErrorCode::kNotFound, fmt::format("there is no model at {}", name)};
  const Result<hub::ModelReference> reference = hub::parse_reference(name);
  if (!reference.ok()) {
    // Not a name of ours, so a path was meant, unless there is more to say about it.
    return reference.error().code == ErrorCode::kUnsupported ? reference.error() : absent;
  }
  Result<fs::path> models = models_folder(places.models_dir, places.environment);
  if (!models.ok()) return absent;
  const hub::ModelStore store(std::move(models).value());
  if (store.find(*reference)) return store.folder(*reference);
  return Error{ErrorCode::kNotFound,
               fmt::format("{} is not here; get it with: fovea pull {}{}", name, name,
                           places.models_dir ? " --models-dir " + *places.models_dir : "")};
}

}  // namespace

Result<fs::path> find_model(const std::optional<std::string>& name, const ModelPlaces& places) {
  std::error_code error;
  // A folder that happens to be called "tiny" is still reached as ./tiny.
  if (name && *name != kTinyName) {
    if (fs::exists(*name, error)) return fs::path(*name);
    return find_pulled(*name, places);
  }
  if (std::optional<fs::path> tiny = find_tiny(places.executable)) return std::move(*tiny);
  return Error{ErrorCode::kNotFound,
               name ? "the tiny model is not part of this installation; give --model DIR"
                    : "no model given; add --model DIR with the folder of a Moondream checkpoint, "
                      "or get one with: fovea pull moondream2"};
}

std::optional<fs::path> find_tiny(const fs::path& executable) {
  const fs::path folder = executable.parent_path();
  const std::array candidates = {
      folder / "models" / kTinyName,
      folder.parent_path().parent_path() / "models" / kTinyName,
      folder.parent_path() / "share" / "fovea" / "models" / kTinyName,
  };
  for (const fs::path& candidate : candidates) {
    if (has_weights(candidate)) return candidate;
  }
  return std::nullopt;
}

std::string model_label(const std::optional<std::string>& name, const fs::path& found) {
  if (!name || *name == kTinyName) return kTinyName;
  std::error_code error;
  if (!fs::exists(*name, error)) return *name;
  const fs::path whole = fs::canonical(found, error);
  if (error) return *name;
  const fs::path folder = fs::is_directory(whole, error) ? whole : whole.parent_path();
  return replace_bad_utf8(folder.filename().string());
}

fs::path executable_path() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error);
}

}  // namespace fovea::cli
