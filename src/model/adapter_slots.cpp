#include "model/adapter_slots.h"

#include <algorithm>
#include <span>

#include "base/check.h"
#include "base/error.h"
#include "base/math.h"
#include "base/try.h"

namespace fovea {
namespace {

// [experts, rank, width] on the host into the leading ranks of [(experts,) max_rank, width].
void upload_matrices(Stream& stream, std::span<const std::byte> source, std::int64_t rank,
                     TensorView slot) {
  const Shape shape = slot.shape;
  const std::int64_t width = shape.back(), max_rank = shape[shape.rank() - 2];
  const std::int64_t num_experts = shape.num_elements() / (max_rank * width);
  const std::size_t bytes = static_cast<std::size_t>(rank * width) * dtype_size(slot.dtype);
  FOVEA_CHECK(source.size() == bytes * static_cast<std::size_t>(num_experts),
              "{} bytes of an adapter for {} experts of rank {} and width {}", source.size(),
              num_experts, rank, width);
  const TensorView matrices = slot.reshaped({num_experts * max_rank, width});
  for (std::int64_t e = 0; e < num_experts; ++e) {
    stream.upload(source.subspan(static_cast<std::size_t>(e) * bytes, bytes),
                  matrices.rows(e * max_rank, rank));
  }
}

}  // namespace

Result<AdapterSlots> AdapterSlots::create(Device& device, const TextConfig& config, DType storage,
                                          const AdapterSlotLimits& limits) {
  if (limits.num_slots < 1)
    return invalid_argument("{} adapter slots; at least 1 is wanted", limits.num_slots);
  if (limits.max_rank < 1 || limits.max_rank > kMaxLoraRank) {
    return invalid_argument("adapters of rank {}; 1 to {} are supported", limits.max_rank,
                            kMaxLoraRank);
  }
  AdapterSlots slots(storage, limits);
  slots.layers_.resize(static_cast<std::size_t>(config.n_layers));
  for (int layer = 0; layer < config.n_layers; ++layer) {
    for (std::size_t t = 0; t < kNumLoraTargets; ++t) {
      const auto target = static_cast<LoraTarget>(t);
      const bool is_attention = target == LoraTarget::kQkv || target == LoraTarget::kProj;
      const auto shape = lora_shape(config, layer, target);
      if (!shape || (is_attention && !limits.attention)) continue;
      Shape a{limits.num_slots};
      if (shape->num_experts > 1) a.push_back(shape->num_experts);
      const bool routed = target == LoraTarget::kExpertsUp || target == LoraTarget::kExpertsDown;
      a.push_back(routed ? ceil_div(limits.max_rank, config.moe->experts_per_token)
                         : limits.max_rank);
      Shape b = a;
      a.push_back(shape->inputs);
      b.push_back(shape->outputs);
      Module& module = slots.layers_[static_cast<std::size_t>(layer)][t];
      FOVEA_TRY(module.a, Tensor::create(device, storage, a));
      FOVEA_TRY(module.b, Tensor::create(device, storage, b));
      module.ranks.assign(static_cast<std::size_t>(limits.num_slots), 0);
    }
  }
  return slots;
}

Status AdapterSlots::check(const Adapter& adapter) const {
  FOVEA_CHECK(adapter.dtype == storage_ && adapter.layers.size() == layers_.size(),
              "an adapter of {} layers in {} for a model of {} in {}", adapter.layers.size(),
              dtype_name(adapter.dtype), layers_.size(), dtype_name(storage_));
  if (adapter.rank > limits_.max_rank) {
    return invalid_argument("an adapter of rank {}; the slots take ranks up to {}", adapter.rank,
                            limits_.max_rank);
  }
  for (const auto& layer : adapter.layers) {
    for (const LoraTarget target : {LoraTarget::kQkv, LoraTarget::kProj}) {
      if (!limits_.attention && layer[static_cast<std::size_t>(target)].rank > 0)
        return invalid_argument("an adapter of the attention; the slots have no room for it");
    }
  }
  return {};
}

Status AdapterSlots::upload(Stream& stream, int slot, const Adapter& adapter) {
  FOVEA_TRY_STATUS(check(adapter));
  clear(slot);
  FOVEA_TRY_STATUS(copy(stream, slot, adapter));
  enable(slot, adapter);
  return {};
}

Status AdapterSlots::copy(Stream& stream, int slot, const Adapter& adapter) const {
  FOVEA_TRY_STATUS(check(adapter));
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    for (std::size_t t = 0; t < kNumLoraTargets; ++t) {
      const LoraPair& pair = adapter.layers[layer][t];
      if (pair.rank == 0) continue;
      const Module& module = layers_[layer][t];
      FOVEA_CHECK(!module.ranks.empty(), "layer {} has no target {}", layer, t);
      upload_matrices(stream, pair.a, pair.rank, module.a.view().rows(slot, 1));
      upload_matrices(stream, pair.b, pair.rank, module.b.view().rows(slot, 1));
    }
  }
  return stream.synchronize();
}

void AdapterSlots::enable(int slot, const Adapter& adapter) noexcept {
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    for (std::size_t t = 0; t < kNumLoraTargets; ++t) {
      const int rank = adapter.layers[layer][t].rank;
      if (rank > 0) layers_[layer][t].ranks[static_cast<std::size_t>(slot)] = rank;
    }
  }
}

void AdapterSlots::clear(int slot) {
  FOVEA_CHECK(slot >= 0 && slot < limits_.num_slots, "adapter slot {} of {}", slot,
              limits_.num_slots);
  for (Layer& layer : layers_) {
    for (Module& module : layer) {
      if (!module.ranks.empty()) module.ranks[static_cast<std::size_t>(slot)] = 0;
    }
  }
}

LoraWeights AdapterSlots::weights(int layer, LoraTarget target) const {
  const Module& module = layers_[static_cast<std::size_t>(layer)][static_cast<std::size_t>(target)];
  if (module.ranks.empty()) return {};
  return {module.a.view(), module.b.view(), module.ranks};
}

std::size_t AdapterSlots::size_bytes() const {
  std::size_t total = 0;
  for (const Layer& layer : layers_) {
    for (const Module& module : layer) total += module.a.size_bytes() + module.b.size_bytes();
  }
  return total;
}

}  // namespace fovea
