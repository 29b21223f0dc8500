#pragma once

#include <memory>

#include "backend/stream.h"
#include "engine/adapter_store.h"
#include "model/adapter.h"
#include "model/adapter_slots.h"
#include "model/config.h"

namespace fovea {

/// Adapters of a model: safetensors files, and AdapterSlots on its device.
class ModelAdapterStore final : public AdapterStore {
 public:
  /// Device and configuration must outlive the store. `storage` is the model's. Errors: those of
  /// AdapterSlots::create.
  static Result<std::unique_ptr<ModelAdapterStore>> create(Device& device,
                                                           const ModelConfig& config, DType storage,
                                                           const AdapterSlotLimits& limits);

  int num_slots() const override { return slots_.num_slots(); }
  Result<AdapterContents> read(const std::filesystem::path& path) const override;
  /// The same for one that has been read by load_adapter().
  Result<AdapterContents> take(const std::filesystem::path& path, Adapter adapter) const;
  Status upload(int slot, const AdapterContents& contents) override;
  void enable(int slot, const AdapterContents& contents) noexcept override;
  void disable(int slot) noexcept override { slots_.clear(slot); }

  /// For the passes through the model.
  const AdapterSlots& slots() const { return slots_; }

 private:
  ModelAdapterStore(const ModelConfig& config, DType storage, AdapterSlots slots,
                    std::unique_ptr<Stream> stream)
      : config_(config), storage_(storage), slots_(std::move(slots)), stream_(std::move(stream)) {}

  const ModelConfig& config_;
  DType storage_;
  AdapterSlots slots_;
  std::unique_ptr<Stream> stream_;  // its own: the steps' stays with the engine thread
};

}  // namespace fovea
