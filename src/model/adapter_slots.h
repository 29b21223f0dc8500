#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "fovea/result.h"

#include "backend/buffer.h"
#include "backend/ops.h"
#include "model/adapter.h"

namespace fovea {

struct AdapterSlotLimits {
  int num_slots = 4;
  int max_rank = 32;      ///< of an adapter, at most kMaxLoraRank; each expert has room for
                          ///< ceil(max_rank / experts_per_token)
  bool attention = true;  ///< room for qkv and proj; fine-tunes need none
};

/// Adapters on the device: a fixed number of slots, each large enough for every pair of an adapter
/// of the largest rank. All memory is allocated at once. Belongs to the thread that runs the
/// passes: upload(), enable() and clear() touch
/// one slot only, but that slot must be in no pass.
class AdapterSlots {
 public:
  /// `storage` is the model's, f32 or bf16. The device must outlive the slots. Errors:
  /// kInvalidArgument for limits out of range, kResourceExhausted.
  static Result<AdapterSlots> create(Device& device, const TextConfig& config, DType storage,
                                     const AdapterSlotLimits& limits);

  /// Whether upload() would take the adapter, which must have been loaded for the same model and
  /// storage. Error: kInvalidArgument with the rank found and the largest, or when the adapter
  /// wants attention and there is no room for it.
  Status check(const Adapter& adapter) const;

  /// Puts an adapter into a slot, in place of what was there; waits until it is on the device.
  /// Nothing is converted: the time is that of copying adapter.size_bytes(). Errors: those of
  /// check(), kDeviceLost.
  Status upload(Stream& stream, int slot, const Adapter& adapter);

  /// The two halves of upload(), for a thread beside the one that runs the passes: copy() fills a
  /// slot that is clear, on any thread; enable() makes it count, on the passes' own.
  Status copy(Stream& stream, int slot, const Adapter& adapter) const;
  void enable(int slot, const Adapter& adapter) noexcept;

  /// Empties a slot: rows that name it are computed without an adapter.
  void clear(int slot);

  /// The pairs of one linear in every slot, for Ops::lora and Ops::moe_mlp; empty where the layer
  /// has no such linear or there is no room for it. Valid as long as the slots, also after a move.
  LoraWeights weights(int layer, LoraTarget target) const;

  int num_slots() const { return limits_.num_slots; }
  int max_rank() const { return limits_.max_rank; }
  /// Device memory of all slots.
  std::size_t size_bytes() const;

 private:
  // One linear: a [slots, (experts,) max_rank, inputs], b [.., outputs].
  struct Module {
    Tensor a, b;
    std::vector<std::int32_t> ranks;  // [slots]; empty = no such module
  };
  using Layer = std::array<Module, kNumLoraTargets>;

  AdapterSlots(DType storage, const AdapterSlotLimits& limits)
      : storage_(storage), limits_(limits) {}

  DType storage_;
  AdapterSlotLimits limits_;
  std::vector<Layer> layers_;
};

}  // namespace fovea
