#pragma once

#include <memory>

#include "backend/cuda/native_kernels.h"

namespace fovea::cuda {

/// Attention of crops and of prompts with what only Hopper has: warpgroups' tensor-core
/// instructions, fed by bulk copies.
class HopperAttention {
 public:
  static constexpr int kTileRows = 128;  ///< of the tables' prompt tiles

  /// Null where the current device is another or its driver too old.
  static std::unique_ptr<const HopperAttention> create();

  /// Whether such crops are for it: heads of 64 or 72, rows aligned to 16 bytes.
  static bool takes_crops(const TensorAttention& args);
  /// Whether such prompts are, whose tables may be missing yet: heads of 64, pages of a multiple of
  /// 16 rows, rows aligned to 16 bytes.
  static bool takes_pages(const TensorAttention& args);

  /// As the functions of native_kernels.h.
  cudaError_t self_attention(const TensorAttention& args, KernelStream stream) const;
  cudaError_t prompt_attention(const TensorAttention& args, KernelStream stream) const;

 private:
  explicit HopperAttention(void* encode) : encode_(encode) {}

  void* encode_;  // the driver's cuTensorMapEncodeTiled
};

}  // namespace fovea::cuda
