#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/cpu/aligned_memory.h"
#include "backend/cpu/isa/kernel_table.h"
#include "backend/cpu/products.h"
#include "backend/cpu/sampler.h"
#include "backend/ops.h"
#include "base/thread_pool.h"

namespace fovea::cpu {

/// Ops on the processor. Activations are f32 whatever the weights are stored as; sums are f32. A
/// row comes out the same to the bit whatever rows, chunks and number of threads it is computed
/// with.
///
/// Used by one stream at a time: workspaces belong to the object. They grow to what the largest
/// call so far needed (moe_mlp, lora, sample and split decode attention; the threads' own scratch
/// is fixed), so nothing is allocated after warm-up.
///
/// Layout of a KV page, per KV head: K [head_dim][page_size], so that scores vectorise over
/// positions, and V [page_size][head_dim]; page_size is a multiple of 8 up to 64.
class CpuOps final : public Ops {
 public:
  /// Null when there is no memory for the threads' scratch. pool and kernels must outlive it.
  static std::unique_ptr<CpuOps> create(ThreadPool& pool, const KernelTable& kernels);

  DType activation_dtype(DType storage) const override;
  Result<std::unique_ptr<const Matrix>> pack(const MatrixSource& source, DType storage) override;

  void patchify(Stream& stream, TensorView crops, TensorView pixel_values, int patch_size,
                TensorView patches) override;
  void self_attention(Stream& stream, TensorView qkv, int tokens, int num_heads,
                      TensorView out) override;
  void stitch_and_pool(Stream& stream, TensorView features, int tile_rows, int tile_cols,
                       int margin, TensorView out) override;
  void embed(Stream& stream, TensorView table, TensorView ids, TensorView y) override;
  void scatter_rows(Stream& stream, TensorView x, TensorView rows, TensorView y) override;
  void gather_rows(Stream& stream, TensorView x, TensorView rows, TensorView y) override;
  void layer_norm(Stream& stream, TensorView x, TensorView weight, TensorView bias, float eps,
                  TensorView y) override;
  void linear(Stream& stream, const LinearArgs& args) override;
  void lora(Stream& stream, const LoraArgs& args) override;
  void activate(Stream& stream, TensorView x, Activation activation, TensorView y) override;
  void tau_scale(Stream& stream, TensorView tau, TensorView position_scale, TensorView positions,
                 HeadLayout heads, TensorView qkv) override;
  void rope_and_store_kv(Stream& stream, TensorView rope, TensorView positions, TensorView slots,
                         HeadLayout heads, TensorView qkv, KvPages pages) override;
  void paged_attention(Stream& stream, TensorView qkv, KvPages pages, HeadLayout heads,
                       const AttentionBatch& batch, TensorView out) override;
  void copy_pages(Stream& stream, std::span<const KvPages> layers,
                  std::span<const std::int32_t> from, std::span<const std::int32_t> to) override;
  void moe_route(Stream& stream, TensorView logits, TensorView experts,
                 TensorView weights) override;
  void moe_mlp(Stream& stream, TensorView x, TensorView experts, TensorView weights,
               std::span<const std::unique_ptr<const Matrix>> up,
               std::span<const std::unique_ptr<const Matrix>> down, const MoeLora* lora,
               TensorView y) override;
  void fourier_features(Stream& stream, TensorView values, TensorView frequencies,
                        bool round_to_bf16, TensorView y) override;
  void argmax_bins(Stream& stream, TensorView logits, int window, TensorView bins_out,
                   TensorView mass) override;
  void sample(Stream& stream, const SampleArgs& args) override;

 private:
  // Rows of one sequence in paged_attention: items [first_item, next sequence's).
  struct SequencePlan {
    std::int64_t first_item;
    std::int64_t row_blocks;  // of a prompt; 0 = rows are decoded one by one
    std::int64_t rows_per_block;
    std::int64_t blocks;            // of keys that a decoded row is joined from
    std::int64_t blocks_per_split;  // taken by one item
    std::int64_t splits;
    std::int64_t first_partial;  // row of the workspace of partial results, one for each block
  };
  struct PagedCall;
  // Which rows each expert takes, and where they lie in the workspace.
  struct ExpertRows;
  // Adapters for a block of rows of moe_mlp; null members where there are none.
  struct ExpertLora;
  // Rows of lora_rows_ that share a pair of matrices.
  struct LoraBlock {
    std::int64_t first_row;
    std::int64_t num_rows;
    std::int64_t matrix;
    std::int64_t rank;
  };

  CpuOps(ThreadPool& pool, const KernelTable& kernels);

  // Aborts unless pages have a type that the kernels read, with the scales that belong to it.
  static void check_pages(const KvPages& pages, const HeadLayout& heads);
  void plan_attention(const PagedCall& call);
  void attend_prompt_block(const PagedCall& call, std::size_t sequence, std::int64_t item,
                           float* scratch) const;
  void attend_decoded_row(const PagedCall& call, std::size_t sequence, std::int64_t item) const;
  void join_splits(const PagedCall& call) const;
  void run_experts(TensorView x, TensorView experts, TensorView weights,
                   std::span<const std::unique_ptr<const Matrix>> up,
                   std::span<const std::unique_ptr<const Matrix>> down, const ExpertLora& lora,
                   TensorView y);
  // Sorts lora_rows_ by matrix.
  void group_lora_rows();
  // Adds the updates of lora_rows_, which are grouped.
  void run_lora(const LoraWeights& weights, const float* x, std::int64_t x_stride, float* y,
                std::int64_t y_stride);

  ThreadPool& pool_;
  const KernelTable& kernels_;
  ThreadScratch scratch_;
  ProductRunner products_;

  std::vector<SequencePlan> sequence_plans_;
  GrowingMemory partials_memory_;
  std::vector<GemmArgs> expert_products_;
  GrowingMemory expert_rows_memory_;
  GrowingMemory expert_hidden_memory_;
  GrowingMemory expert_out_memory_;
  std::vector<LoraRow> lora_rows_;
  std::vector<LoraBlock> lora_blocks_;
  std::vector<std::int32_t> lora_row_slots_;  // of each row of moe_mlp
  GrowingMemory lora_hidden_memory_;
  std::vector<SamplerScratch> sampler_scratch_;  // one for each thread
};

}  // namespace fovea::cpu
