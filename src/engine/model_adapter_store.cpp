#include "engine/model_adapter_store.h"

#include "base/error.h"
#include "base/try.h"

namespace fovea {
namespace {

const Adapter& adapter_of(const AdapterContents& contents) {
  return *static_cast<const Adapter*>(contents.weights.get());
}

Sha256Digest digest_of(const Adapter& adapter) {
  Sha256 hash;
  for (const auto& layer : adapter.layers) {
    for (const LoraPair& pair : layer) {
      hash.update(std::to_string(pair.rank) + ";").update(pair.a).update(pair.b);
    }
  }
  return hash.finish();
}

}  // namespace

Result<std::unique_ptr<ModelAdapterStore>> ModelAdapterStore::create(
    Device& device, const ModelConfig& config, DType storage, const AdapterSlotLimits& limits) {
  FOVEA_TRY(AdapterSlots slots, AdapterSlots::create(device, config.text, storage, limits));
  FOVEA_TRY(std::unique_ptr<Stream> stream, device.make_stream());
  return std::unique_ptr<ModelAdapterStore>(
      new ModelAdapterStore(config, storage, std::move(slots), std::move(stream)));
}

Result<AdapterContents> ModelAdapterStore::read(const std::filesystem::path& path) const {
  FOVEA_TRY(Adapter adapter, load_adapter(path, config_, storage_));
  return take(path, std::move(adapter));
}

Result<AdapterContents> ModelAdapterStore::take(const std::filesystem::path& path,
                                                Adapter adapter) const {
  if (const Status fits = slots_.check(adapter); !fits.ok()) {
    return error(fits.error().code, "{}: {}", path.string(), fits.error().message);
  }
  AdapterContents contents;
  contents.rank = adapter.rank;
  contents.digest = digest_of(adapter);
  contents.weights = std::make_shared<const Adapter>(std::move(adapter));
  return contents;
}

Status ModelAdapterStore::upload(int slot, const AdapterContents& contents) {
  return slots_.copy(*stream_, slot, adapter_of(contents));
}

void ModelAdapterStore::enable(int slot, const AdapterContents& contents) noexcept {
  slots_.enable(slot, adapter_of(contents));
}

}  // namespace fovea
