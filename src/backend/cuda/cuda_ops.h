#pragma once

#include <memory>

#include "backend/cuda/large_products.h"
#include "backend/cuda/native_kernels.h"
#include "backend/portable/portable_ops.h"

namespace fovea::cuda {

/// PortableOps with what NVIDIA's hardware does better: bf16 products through cuBLASLt, or with
/// weights streamed from memory for a few rows; attention on tensor cores; norms that read a row
/// once. What is not bf16 takes the portable kernels, and so does everything in batch-invariant
/// mode that would depend on the batch.
class CudaOps final : public portable::PortableOps {
 public:
  struct Options {
    int device_index = 0;
    bool batch_invariant = false;
  };
  static Result<std::unique_ptr<Ops>> create(Device& device, portable::Launcher& launcher,
                                             const Options& options);

  void layer_norm(Stream& stream, TensorView x, TensorView weight, TensorView bias, float eps,
                  TensorView y) override;
  void linear(Stream& stream, const LinearArgs& args) override;
  void self_attention(Stream& stream, TensorView qkv, int tokens, int num_heads,
                      TensorView out) override;
  void paged_attention(Stream& stream, TensorView qkv, KvPages pages, HeadLayout heads,
                       const AttentionBatch& batch, TensorView out) override;

 private:
  CudaOps(Device& device, portable::Launcher& launcher, const Options& options)
      : PortableOps(device, launcher), options_(options), bias_(device) {}

  // False where the sizes or types are not for this way.
  bool stream_weights(CudaStream& stream, const LinearArgs& args);
  bool multiply_large(CudaStream& stream, const LinearArgs& args);

  Options options_;
  std::unique_ptr<LargeProducts> products_;  // null without cuBLASLt
  portable::GrowingBuffer bias_;             // of the product at hand, as bf16
};

}  // namespace fovea::cuda
