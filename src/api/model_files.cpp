#include "model_files.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "fovea/engine.h"

#include "base/json.h"
#include "base/try.h"
#include "model/tokenizer_fit.h"
#include "tensor/dtype.h"

namespace fovea {
namespace {

constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20;

Result<std::optional<json::value>> read_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  if (!std::filesystem::exists(path)) return std::optional<json::value>{};
  FOVEA_TRY(json::value document, json::parse_file(path, kMaxConfigBytes));
  return std::optional<json::value>(std::move(document));
}

// The type that most of the checkpoint's bytes have.
std::string main_dtype(const Checkpoint& checkpoint) {
  std::map<DType, std::size_t> bytes;
  for (const TensorEntry& tensor : checkpoint.tensors()) {
    bytes[tensor.dtype] += tensor.bytes.size();
  }
  const auto most = std::ranges::max_element(
      bytes, {}, [](const std::pair<const DType, std::size_t>& entry) { return entry.second; });
  return most == bytes.end() ? std::string() : std::string(dtype_name(most->first));
}

}  // namespace

Result<ModelFiles> open_model(const std::filesystem::path& path) {
  FOVEA_TRY(Checkpoint checkpoint, Checkpoint::open(path));
  FOVEA_TRY(const auto config_json, read_config(checkpoint.folder()));
  FOVEA_TRY(ModelConfig config, resolve_config(checkpoint, config_json ? &*config_json : nullptr));
  FOVEA_TRY(Tokenizer tokenizer, Tokenizer::load(checkpoint.folder()));
  FOVEA_TRY_STATUS(check_tokenizer_fits(tokenizer, config));
  return ModelFiles{std::move(checkpoint), std::move(config), std::move(tokenizer)};
}

Result<ModelSummary> inspect_model(const std::filesystem::path& path) {
  FOVEA_TRY(const ModelFiles files, open_model(path));
  return ModelSummary{.family = files.config.family,
                      .stored_as = main_dtype(files.checkpoint),
                      .checkpoint_bytes = files.checkpoint.total_bytes()};
}

}  // namespace fovea
