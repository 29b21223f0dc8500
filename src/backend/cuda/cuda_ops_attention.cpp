#include <algorithm>

#include "backend/cuda/cuda_ops.h"
#include "backend/portable/shapes.h"

namespace fovea::cuda {

namespace {

constexpr int kMostDecoded = 4;  // rows that are cheaper one by one than as a tile

// Whether kernels other than the portable ones read such pages.
bool is_native_page(DType pages) { return pages == DType::kBf16 || is_coded(pages); }

PageType page_type_of(DType pages) {
  if (pages == DType::kBf16) return PageType::kBf16;
  return pages == DType::kI8 ? PageType::kI8 : PageType::kF8;
}

}  // namespace

void CudaOps::self_attention(Stream& stream, TensorView qkv, int tokens, int num_heads,
                             TensorView out) {
  const std::int64_t dim = out.shape.back();
  const auto head_dim = static_cast<int>(dim / num_heads);
  const std::int64_t rows = out.num_elements() / dim;
  if (options_.batch_invariant || qkv.dtype != DType::kBf16 || out.dtype != DType::kBf16 ||
      !can_attend(head_dim)) {
    return PortableOps::self_attention(stream, qkv, tokens, num_heads, out);
  }
  FOVEA_CHECK(tokens > 0 && dim == std::int64_t{num_heads} * head_dim && rows % tokens == 0 &&
                  qkv.num_elements() == rows * 3 * dim,
              "qkv {}, out {}", qkv.shape.to_string(), out.shape.to_string());
  if (rows == 0) return;
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (!cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) return;
  TensorAttention call{.qkv = qkv.data,
                       .out = out.data,
                       .num_heads = num_heads,
                       .num_kv_heads = num_heads,
                       .head_dim = head_dim};
  call.tokens = tokens;
  call.num_crops = static_cast<int>(rows / tokens);
  const bool on_hopper = hopper_attention_ != nullptr && HopperAttention::takes_crops(call);
  cuda_stream.check(on_hopper ? hopper_attention_->self_attention(call, cuda_stream.next_launch())
                              : cuda::self_attention(call, cuda_stream.next_launch()),
                    "attention of crops");
}

void CudaOps::rope_and_store_kv(Stream& stream, TensorView rope, TensorView positions,
                                TensorView slots, HeadLayout heads, TensorView qkv, KvPages pages) {
  const std::int64_t rows = positions.num_elements();
  if (qkv.dtype != DType::kBf16 || pages.k.dtype != DType::kBf16 || rope.shape.rank() != 3 ||
      !can_rotate(heads.head_dim, rope.shape[1]) || !are_aligned({qkv, pages.k, pages.v, rope}) ||
      rows == 0) {
    return PortableOps::rope_and_store_kv(stream, rope, positions, slots, heads, qkv, pages);
  }
  portable::check_rope(rope, positions, slots, heads, qkv);
  portable::check_pages(pages, heads);
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (!cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) return;
  cuda_stream.check(rotate_rows({.qkv = qkv.data,
                                 .k_pages = pages.k.data,
                                 .v_pages = pages.v.data,
                                 .rope = rope.as<float>(),
                                 .positions = positions.as<std::int32_t>(),
                                 .slots = slots.as<std::int32_t>(),
                                 .rows = static_cast<int>(rows),
                                 .num_heads = heads.num_heads,
                                 .num_kv_heads = heads.num_kv_heads,
                                 .head_dim = heads.head_dim,
                                 .page_size = heads.page_size,
                                 .max_positions = static_cast<int>(rope.shape[0]),
                                 .rotary_pairs = static_cast<int>(rope.shape[1]),
                                 .num_slots = static_cast<int>(pages.k.shape[0] * heads.page_size)},
                                cuda_stream.next_launch()),
                    "rotation");
}

void CudaOps::paged_attention(Stream& stream, TensorView qkv, KvPages pages, HeadLayout heads,
                              const AttentionBatch& batch, TensorView out) {
  if (options_.batch_invariant || qkv.dtype != DType::kBf16 || out.dtype != DType::kBf16 ||
      !is_native_page(pages.k.dtype) || !can_attend(heads.head_dim) ||
      !can_decode(heads.head_dim)) {
    return PortableOps::paged_attention(stream, qkv, pages, heads, batch, out);
  }
  portable::check_pages(pages, heads);
  TensorAttention call{.qkv = qkv.data,
                       .out = out.data,
                       .num_heads = heads.num_heads,
                       .num_kv_heads = heads.num_kv_heads,
                       .head_dim = heads.head_dim};
  call.k_pages = pages.k.data;
  call.v_pages = pages.v.data;
  call.page_size = heads.page_size;
  call.max_pages = static_cast<int>(batch.max_pages);
  call.num_rows = static_cast<int>(qkv.shape[0]);
  call.num_pages = static_cast<int>(pages.k.shape[0]);
  const bool on_hopper = hopper_attention_ != nullptr && HopperAttention::takes_pages(call);
  const int tile_rows = on_hopper ? HopperAttention::kTileRows : kAttentionTileRows;
  const bool is_widened = is_coded(pages.k.dtype);
  if (is_widened) {
    const std::int64_t elements = pages.k.num_elements() / pages.k.shape[0];
    widened_.plan(batch, heads.page_size, static_cast<std::size_t>(elements) * 2, tile_rows,
                  kMostDecoded);
  }
  const AttentionTables tables =
      put_attention_tables(stream, batch, tile_rows, kMostDecoded,
                           is_widened ? widened_.page_table() : std::span<const std::int32_t>{});
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (tables.memory.data == nullptr ||
      !cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) {
    return;
  }
  if (tables.num_prompt_tiles > 0) {
    call.tables = reinterpret_cast<const std::int32_t*>(tables.memory.data);
    call.context_at = static_cast<int>(tables.context_at);
    call.prefix_at = static_cast<int>(tables.prefix_at);
    call.pages_at = static_cast<int>(tables.pages_at);
    call.tiles_at = static_cast<int>(tables.prompt_tiles_at);
    call.num_tiles = static_cast<int>(tables.num_prompt_tiles);
    if (is_widened) {
      attend_widened(cuda_stream, call, on_hopper, pages, static_cast<int>(tables.other_pages_at));
    } else {
      attend_prompts(cuda_stream, call, on_hopper);
    }
  }
  if (tables.num_decode_tiles > 0) {
    cuda_stream.check(decode_attention(decoded_rows(qkv, pages, heads, batch, tables, out),
                                       cuda_stream.next_launch()),
                      "attention of decoded rows");
  }
}

void CudaOps::attend_prompts(CudaStream& stream, const TensorAttention& call, bool on_hopper) {
  stream.check(on_hopper ? hopper_attention_->prompt_attention(call, stream.next_launch())
                         : prompt_attention(call, stream.next_launch()),
               "attention of prompts");
}

// As attend_prompts, over pages of codes; `call` has all but what follows from the plan.
void CudaOps::attend_widened(CudaStream& stream, TensorAttention call, bool on_hopper,
                             const KvPages& pages, int widened_at) {
  std::byte* memory = widened_.memory(launcher_, stream);
  if (memory == nullptr) return;
  const std::int64_t elements = pages.k.num_elements() / pages.k.shape[0];
  WidenedPages widened{.k_pages = pages.k.data,
                       .v_pages = pages.v.data,
                       .k_steps = pages.k_scale.as<float>(),
                       .v_steps = pages.v_scale.as<float>(),
                       .type = page_type_of(pages.k.dtype),
                       .k = memory,
                       .v = memory + widened_.num_pages() * elements * 2,
                       .num_kv_heads = call.num_kv_heads,
                       .page_size = call.page_size,
                       .head_dim = call.head_dim,
                       .max_pages = call.max_pages,
                       .tables = call.tables,
                       .context_at = call.context_at,
                       .pages_at = call.pages_at,
                       .widened_at = widened_at,
                       .first_sequence = 0,
                       .num_sequences = 0};
  call.k_pages = widened.k;
  call.v_pages = widened.v;
  call.num_pages = widened_.num_pages();
  call.pages_at = widened_at;
  const int tiles_at = call.tiles_at;
  for (const WidenedPrompts::Group& group : widened_.groups()) {
    widened.first_sequence = group.first_sequence;
    widened.num_sequences = group.num_sequences;
    stream.check(widen_pages(widened, stream.next_launch()), "widening pages");
    call.tiles_at = tiles_at + 2 * group.first_tile;
    call.num_tiles = group.num_tiles;
    attend_prompts(stream, call, on_hopper);
  }
}

// Single rows and where their keys lie.
DecodedRows CudaOps::decoded_rows(TensorView qkv, KvPages pages, HeadLayout heads,
                                  const AttentionBatch& batch, const AttentionTables& tables,
                                  TensorView out) {
  return {.qkv = qkv.data,
          .out = out.data,
          .num_heads = heads.num_heads,
          .num_kv_heads = heads.num_kv_heads,
          .head_dim = heads.head_dim,
          .k_pages = pages.k.data,
          .v_pages = pages.v.data,
          .page_type = page_type_of(pages.k.dtype),
          .k_steps = reinterpret_cast<float*>(pages.k_scale.data),
          .v_steps = reinterpret_cast<float*>(pages.v_scale.data),
          .page_size = heads.page_size,
          .max_pages = static_cast<int>(batch.max_pages),
          .tables = reinterpret_cast<const std::int32_t*>(tables.memory.data),
          .context_at = static_cast<int>(tables.context_at),
          .prefix_at = static_cast<int>(tables.prefix_at),
          .pages_at = static_cast<int>(tables.pages_at),
          .tiles_at = static_cast<int>(tables.decode_tiles_at),
          .num_tiles = static_cast<int>(tables.num_decode_tiles)};
}

// Sequences of one row each: scaled, rotated, stored and attended in one launch.
std::optional<NewRows> CudaOps::as_new_rows(const CachedAttentionArgs& args) const {
  const HeadLayout& heads = args.heads;
  const AttentionBatch& batch = args.batch;
  const std::int64_t rows = args.positions.num_elements();
  const std::int64_t width =
      std::int64_t{heads.num_heads + 2 * heads.num_kv_heads} * heads.head_dim;
  if (options_.batch_invariant || args.qkv.dtype != DType::kBf16 ||
      args.out.dtype != DType::kBf16 || !is_native_page(args.pages.k.dtype) ||
      !can_decode(heads.head_dim) || heads.num_heads % heads.num_kv_heads != 0 || rows == 0 ||
      batch.context_len.size() != static_cast<std::size_t>(rows) ||
      batch.query_start.size() != batch.context_len.size() + 1) {
    return std::nullopt;
  }
  for (std::size_t s = 0; s < batch.context_len.size(); ++s) {
    if (batch.query_start[s + 1] - batch.query_start[s] != 1) return std::nullopt;
  }
  portable::check_pages(args.pages, heads);
  portable::check_rope(args.rope, args.positions, args.slots, heads, args.qkv);
  FOVEA_CHECK(args.out.num_elements() == rows * heads.num_heads * heads.head_dim, "out {}, {} rows",
              args.out.shape.to_string(), rows);
  NewRows call{};
  call.rope = args.rope.as<float>();
  call.positions = args.positions.as<std::int32_t>();
  call.slots = args.slots.as<std::int32_t>();
  call.max_positions = static_cast<int>(args.rope.shape[0]);
  call.rotary_pairs = static_cast<int>(args.rope.shape[1]);
  call.num_slots = static_cast<int>(args.pages.k.shape[0] * heads.page_size);
  if (args.tau.weight == nullptr) return call;
  // Every block makes its own factors from all of its row: of many rows a product of them is
  // faster.
  constexpr std::int64_t kMostTauRows = 16;
  const portable::DeviceMatrix& tau = portable::device_matrix(*args.tau.weight);
  if (rows > kMostTauRows || tau.weight().dtype == DType::kF32 ||
      tau.weight().dtype == DType::kInt4 || heads.num_kv_heads != heads.num_heads) {
    return std::nullopt;
  }
  FOVEA_CHECK(tau.rows() == 2 * heads.num_heads && tau.cols() == width &&
                  args.tau.input.num_elements() == rows * width &&
                  args.tau.position_scale.shape.back() == heads.num_heads,
              "tau {} x {} for {} heads", tau.rows(), tau.cols(), heads.num_heads);
  call.tau_weight = tau.weight().data;
  call.tau_scale = tau.scale().empty() ? nullptr : tau.scale().as<float>();
  call.position_scale = args.tau.position_scale.as<float>();
  call.tau_positions = static_cast<int>(args.tau.position_scale.shape[0]);
  call.tau_input = args.tau.input.data;
  call.tau_is_f8 = tau.weight().dtype == DType::kF8E4M3;
  return call;
}

void CudaOps::cached_attention(Stream& stream, const CachedAttentionArgs& args) {
  std::optional<NewRows> call = as_new_rows(args);
  if (!call) return PortableOps::cached_attention(stream, args);
  const AttentionTables tables =
      put_attention_tables(stream, args.batch, kAttentionTileRows, kMostDecoded);
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (tables.memory.data == nullptr ||
      !cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) {
    return;
  }
  call->rows = decoded_rows(args.qkv, args.pages, args.heads, args.batch, tables, args.out);
  const KvPages& pages = args.pages;
  call->is_early = cuda_stream.may_read_early(
      {pages.k, pages.v, pages.k_scale, pages.v_scale, args.slots, tables.memory});
  cuda_stream.check(decode_new_rows(*call, cuda_stream.next_launch()), "attention of decoded rows");
  cuda_stream.newest_writes({args.out, pages.k, pages.v, pages.k_scale, pages.v_scale});
}

}  // namespace fovea::cuda
