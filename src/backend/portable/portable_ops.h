#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/device.h"
#include "backend/ops.h"
#include "backend/portable/device_memory.h"
#include "backend/portable/launcher.h"
#include "base/thread_pool.h"

namespace fovea::portable {

/// Ops on top of any Launcher, from the kernels of src/kernels: all that is to be known of grids,
/// scratch and tables, once for every GPU. A backend overrides what its hardware does better.
///
/// Activations are f32, or bf16 for 16-bit and 8-bit storage; every method takes either, and
/// linear() also bf16 x to f32 y. Sums are f32. A row comes out the same to the bit whatever rows
/// and chunks it is computed with.
///
/// Used by one stream at a time: workspaces and tables belong to the object. They grow to what the
/// largest call so far needed.
///
/// Layout of a KV page: for each KV head, page_size positions of head_dim elements.
class PortableOps : public Ops {
 public:
  /// device and launcher must outlive it.
  static Result<std::unique_ptr<PortableOps>> create(Device& device, Launcher& launcher);

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

 protected:
  PortableOps(Device& device, Launcher& launcher);

  /// Launches `kernel`; nothing at all for an empty grid.
  template <class Params>
  void launch(Stream& stream, kernels::KernelId kernel, Grid grid, std::uint32_t threads,
              std::size_t shared_bytes, const Params& params,
              std::initializer_list<const void*> buffers) {
    launch_bytes(stream, kernel, grid, threads, shared_bytes, std::as_bytes(std::span(&params, 1)),
                 buffers);
  }
  /// Adds add[t mod R] (f32) to the rows of y.
  void add_rows(Stream& stream, TensorView add, TensorView y);

  /// The tables of a step's attention on the device, and where their parts begin (in i32).
  struct AttentionTables {
    TensorView memory;  // of the device, u8; no data when memory ran out
    std::uint32_t context_at, prefix_at, pages_at, other_pages_at, prompt_tiles_at, decode_tiles_at;
    std::uint32_t num_prompt_tiles, num_decode_tiles;
  };
  /// Tiles of `tile_rows` rows for sequences of more than `most_decoded` rows, single rows for the
  /// others. other_pages: another page table of the same sequences, or nothing. No data when
  /// memory ran out.
  AttentionTables put_attention_tables(Stream& stream, const AttentionBatch& batch, int tile_rows,
                                       int most_decoded,
                                       std::span<const std::int32_t> other_pages = {});

  /// Which adapters the rows of a call take, on the device.
  struct LoraTables {
    const std::byte* row_slots;
    const std::byte* ranks;
    std::int32_t largest_rank;  ///< 0: no row has an adapter
  };
  /// What one lora update of a call reads and writes; see kernels/lora.h.
  struct LoraCall {
    TensorView x;
    std::int64_t num_pairs, choices, num_experts;
    const void* experts;
    const void* places;
    bool x_by_place, y_by_place;
    TensorView y;
  };
  /// Of the rows [first_row, first_row + count) of a batch of num_rows.
  LoraTables put_lora_tables(Stream& stream, DeviceTable& table, const LoraWeights& weights,
                             const LoraBatch& batch, std::int64_t num_rows, std::int64_t first_row,
                             std::int64_t count);
  /// Adds to call.y what adapters make of call.x.
  void run_lora(Stream& stream, const LoraWeights& weights, const LoraTables& tables,
                const LoraCall& call);
  /// The same for the experts [T, k] of each row. y lies by `places` [T * k]; x_by_place: x too.
  void run_expert_lora(Stream& stream, const LoraWeights& weights, const LoraTables& tables,
                       TensorView experts, const void* places, bool x_by_place, TensorView x,
                       TensorView y);

  /// The stream of pack().
  Result<Stream*> load_stream();

  Device& device_;
  Launcher& launcher_;

 private:
  struct ExpertCall;
  struct ExpertWorkspace;
  struct ExpertsProduct;

  void launch_bytes(Stream& stream, kernels::KernelId kernel, Grid grid, std::uint32_t threads,
                    std::size_t shared_bytes, std::span<const std::byte> params,
                    std::initializer_list<const void*> buffers);
  // Nothing when memory ran out.
  std::optional<ExpertWorkspace> expert_workspace(Stream& stream, const ExpertCall& call);
  // One product of every expert, and what the rows' adapters add to it.
  void multiply_experts(Stream& stream, const ExpertCall& call, const ExpertWorkspace& work,
                        const ExpertsProduct& product);
  void run_experts(Stream& stream, const ExpertCall& call);

  std::unique_ptr<Stream> load_stream_;
  std::unique_ptr<ThreadPool> load_pool_;  ///< made for the first matrix in 4 bits
  DeviceTable attention_table_;
  DeviceTable lora_table_;
  DeviceTable expert_up_table_;
  DeviceTable expert_down_table_;
  DeviceTable page_table_;
  DeviceTable sample_table_;
  GrowingBuffer lora_hidden_;
  GrowingBuffer expert_memory_;
  GrowingBuffer sample_memory_;
  std::vector<std::int32_t> numbers_;  // of a table that is being made; keeps its capacity
  std::vector<std::byte> bytes_;
};

}  // namespace fovea::portable
