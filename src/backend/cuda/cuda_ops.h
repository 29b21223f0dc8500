#pragma once

#include <initializer_list>
#include <memory>
#include <optional>

#include "backend/cuda/hopper_attention.h"
#include "backend/cuda/hopper_experts.h"
#include "backend/cuda/large_products.h"
#include "backend/cuda/native_kernels.h"
#include "backend/cuda/widened_prompts.h"
#include "backend/portable/device_matrix.h"
#include "backend/portable/portable_ops.h"

namespace fovea::cuda {

/// Of a weight that is not f32.
WeightType weight_type(const portable::DeviceMatrix& matrix);

/// Whether kernels may load 16 bytes at a time from where each of these begins.
bool are_aligned(std::initializer_list<TensorView> tensors);

/// PortableOps with what NVIDIA's hardware does better: bf16 products through cuBLASLt, or with
/// weights streamed from memory for a few rows; attention on tensor cores; routed experts in two
/// products for all of them; norms that read a row once. What is not bf16 takes the portable
/// kernels, and so does everything in batch-invariant mode that would depend on the batch.
class CudaOps final : public portable::PortableOps {
 public:
  struct Options {
    int device_index = 0;
    bool batch_invariant = false;
  };
  static Result<std::unique_ptr<Ops>> create(Device& device, portable::Launcher& launcher,
                                             const Options& options);

  Result<std::unique_ptr<const Matrix>> pack(const MatrixSource& source, DType storage) override;
  void layer_norm(Stream& stream, TensorView x, TensorView weight, TensorView bias, float eps,
                  TensorView y) override;
  void linear(Stream& stream, const LinearArgs& args) override;
  void linears(Stream& stream, std::span<const LinearArgs> products) override;
  void add_linears(Stream& stream, std::span<const LinearArgs> products) override;
  void cached_attention(Stream& stream, const CachedAttentionArgs& args) override;
  void routed_experts(Stream& stream, const RoutedExpertsArgs& args) override;
  void self_attention(Stream& stream, TensorView qkv, int tokens, int num_heads,
                      TensorView out) override;
  void rope_and_store_kv(Stream& stream, TensorView rope, TensorView positions, TensorView slots,
                         HeadLayout heads, TensorView qkv, KvPages pages) override;
  void paged_attention(Stream& stream, TensorView qkv, KvPages pages, HeadLayout heads,
                       const AttentionBatch& batch, TensorView out) override;
  void moe_mlp(Stream& stream, TensorView x, TensorView experts, TensorView weights,
               std::span<const std::unique_ptr<const Matrix>> up,
               std::span<const std::unique_ptr<const Matrix>> down, const MoeLora* lora,
               TensorView y) override;

 private:
  CudaOps(Device& device, portable::Launcher& launcher, const Options& options)
      : PortableOps(device, launcher),
        options_(options),
        operand_(device),
        expert_memory_(device),
        up_adapters_(device),
        down_adapters_(device),
        widened_(device) {}

  bool is_native(const LinearArgs& args) const;
  // Of how many rows a kernel takes weights of a type.
  using MostRows = int (*)(WeightType);
  std::optional<StreamedLinear> as_streamed(const LinearArgs& args, MostRows most_rows) const;
  void run_streamed(CudaStream& stream, const StreamedProducts& products,
                    std::initializer_list<TensorView> written);
  std::optional<StreamedTerm> beside_experts(const RoutedExpertsArgs& args, WeightType type,
                                             std::int64_t inner) const;
  std::optional<NewRows> as_new_rows(const CachedAttentionArgs& args) const;
  static DecodedRows decoded_rows(TensorView qkv, KvPages pages, HeadLayout heads,
                                  const AttentionBatch& batch, const AttentionTables& tables,
                                  TensorView out);
  void attend_prompts(CudaStream& stream, const TensorAttention& call, bool on_hopper);
  void attend_widened(CudaStream& stream, TensorAttention call, bool on_hopper,
                      const KvPages& pages, int widened_at);
  // False where the sizes or types are not for this way.
  bool multiply_large(CudaStream& stream, const LinearArgs& args);
  const void* narrow_bias(CudaStream& stream, const portable::DeviceMatrix& matrix,
                          TensorView bias);
  const void* widened(CudaStream& stream, const portable::DeviceMatrix& matrix);
  bool run_large(CudaStream& stream, const portable::DeviceMatrix& matrix,
                 const LargeProduct& product, Activation& activation);

  Options options_;
  std::unique_ptr<LargeProducts> products_;                  // null without cuBLASLt
  std::unique_ptr<const HopperAttention> hopper_attention_;  // null on other devices
  std::unique_ptr<const HopperExperts> hopper_experts_;      // the same
  portable::GrowingBuffer operand_;  // of the product at hand, in another type
  portable::GrowingBuffer expert_memory_;
  portable::DeviceTable up_adapters_;  // which rows take which
  portable::DeviceTable down_adapters_;
  WidenedPrompts widened_;
};

}  // namespace fovea::cuda
