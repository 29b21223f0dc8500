#pragma once

#include <memory>

#include "backend/cuda/native_kernels.h"

namespace fovea::cuda {

/// Products of many rows with experts, with what only Hopper has: warpgroups' tensor-core
/// instructions, fed by bulk copies of the weights.
class HopperExperts {
 public:
  static constexpr int kMostExperts = 64;  ///< whose tensor maps a launch carries

  /// Null where the current device is another or its driver too old.
  static std::unique_ptr<const HopperExperts> create();

  /// As tiled_experts(), but what down writes is bf16 too. x is stored as the weights are, bf16 or
  /// e4m3: of weights in e4m3 it has x_scales. Widths are multiples of 32, weights aligned to 16
  /// bytes. Between up and down comes nothing but what quantises y: down reads the weights and the
  /// places before the kernel in front of it has ended.
  cudaError_t multiply(const ExpertProduct& args, bool up, KernelStream stream) const;

 private:
  explicit HopperExperts(void* encode) : encode_(encode) {}

  void* encode_;  // the driver's cuTensorMapEncodeTiled
};

}  // namespace fovea::cuda
