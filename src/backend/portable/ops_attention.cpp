#include "backend/portable/launch_shape.h"
#include "backend/portable/portable_ops.h"
#include "backend/portable/shapes.h"
#include "base/math.h"
#include "kernels/attention.h"
#include "kernels/kv_cache.h"

namespace fovea::portable {

using kernels::KernelId;

namespace {

struct CachedKernels {
  KernelId store;
  KernelId prompt;
  KernelId decode;
};

// The kernels for activations and pages of these types.
CachedKernels kernels_for(DType activation, DType pages) {
#define FOVEA_CACHED(types)                                                        \
  CachedKernels {                                                                  \
    KernelId::rope_and_store_kv_##types, KernelId::paged_attention_prompt_##types, \
        KernelId::paged_attention_decode_##types                                   \
  }
  if (activation == DType::kF32) {
    if (pages == DType::kF32) return FOVEA_CACHED(f32_f32);
    if (pages == DType::kBf16) return FOVEA_CACHED(f32_bf16);
    return pages == DType::kI8 ? FOVEA_CACHED(f32_i8) : FOVEA_CACHED(f32_f8);
  }
  FOVEA_CHECK(activation == DType::kBf16 && pages != DType::kF32, "activations of {}, pages of {}",
              dtype_name(activation), dtype_name(pages));
  if (pages == DType::kBf16) return FOVEA_CACHED(bf16_bf16);
  return pages == DType::kI8 ? FOVEA_CACHED(bf16_i8) : FOVEA_CACHED(bf16_f8);
#undef FOVEA_CACHED
}

}  // namespace

void check_rope(TensorView rope, TensorView positions, TensorView slots, const HeadLayout& heads,
                TensorView qkv) {
  const std::int64_t rows = positions.num_elements();
  const std::int64_t num_heads = heads.num_heads + std::int64_t{2} * heads.num_kv_heads;
  FOVEA_CHECK(rope.shape.rank() == 3 && rope.shape[2] == 2 && 2 * rope.shape[1] <= heads.head_dim,
              "rope {} for heads of {}", rope.shape.to_string(), heads.head_dim);
  FOVEA_CHECK(
      qkv.num_elements() == rows * num_heads * heads.head_dim && slots.num_elements() == rows,
      "qkv {}, {} positions, {} slots", qkv.shape.to_string(), rows, slots.num_elements());
}

void check_pages(const KvPages& pages, const HeadLayout& heads) {
  const DType type = pages.k.dtype;
  FOVEA_CHECK(pages.v.dtype == type && can_hold_kv(type), "KV pages of {} and {}", dtype_name(type),
              dtype_name(pages.v.dtype));
  FOVEA_CHECK(heads.page_size % 8 == 0 && heads.page_size > 0 && heads.page_size <= 64,
              "page_size {}", heads.page_size);
  FOVEA_CHECK(heads.head_dim % 8 == 0 && heads.head_dim > 0 &&
                  heads.head_dim <= static_cast<int>(kernels::kMaxHeadDim),
              "head_dim {}", heads.head_dim);
  const std::int64_t positions = pages.k.shape[0] * heads.num_kv_heads * heads.page_size;
  FOVEA_CHECK(pages.k.num_elements() == positions * heads.head_dim &&
                  pages.v.num_elements() == pages.k.num_elements(),
              "KV pages {} and {}", pages.k.shape.to_string(), pages.v.shape.to_string());
  if (!is_coded(type)) return;
  FOVEA_CHECK(!pages.k_scale.empty() && !pages.v_scale.empty() &&
                  pages.k_scale.num_elements() == positions &&
                  pages.v_scale.num_elements() == positions,
              "KV scales {} and {} for {} positions", pages.k_scale.shape.to_string(),
              pages.v_scale.shape.to_string(), positions);
}

void PortableOps::self_attention(Stream& stream, TensorView qkv, int tokens, int num_heads,
                                 TensorView out) {
  const std::int64_t dim = out.shape.back();
  FOVEA_CHECK(tokens > 0 && num_heads > 0 && dim % num_heads == 0, "{} tokens, {} heads of {}",
              tokens, num_heads, dim);
  const std::int64_t head_dim = dim / num_heads;
  FOVEA_CHECK(head_dim % 8 == 0 && head_dim <= kernels::kMaxHeadDim, "head_dim {}", head_dim);
  const std::int64_t crops = out.num_elements() / dim / tokens;
  FOVEA_CHECK(
      qkv.num_elements() == crops * tokens * 3 * dim && out.num_elements() == crops * tokens * dim,
      "qkv {}, out {}", qkv.shape.to_string(), out.shape.to_string());
  const std::uint32_t tiles = ceil_div(narrow(tokens), kernels::PromptRows::kTileRows);
  launch(stream, pick(out.dtype, KernelId::self_attention_f32, KernelId::self_attention_bf16),
         {tiles, narrow(num_heads), narrow(crops)}, kThreads,
         kernels::PromptRows::scratch_bytes(narrow(head_dim)),
         kernels::SelfAttentionParams{narrow(tokens), narrow(num_heads), narrow(head_dim), tiles},
         {qkv.data, out.data});
}

void PortableOps::rope_and_store_kv(Stream& stream, TensorView rope, TensorView positions,
                                    TensorView slots, HeadLayout heads, TensorView qkv,
                                    KvPages pages) {
  const std::int64_t rows = positions.num_elements();
  const std::int64_t num_heads = heads.num_heads + std::int64_t{2} * heads.num_kv_heads;
  check_rope(rope, positions, slots, heads, qkv);
  check_pages(pages, heads);
  launch(stream, kernels_for(qkv.dtype, pages.k.dtype).store,
         {narrow(rows), ceil_div(narrow(num_heads), kThreads / kernels::kWarpSize)}, kThreads, 0,
         kernels::RopeParams{narrow(heads.num_heads), narrow(heads.num_kv_heads),
                             narrow(heads.head_dim), narrow(heads.page_size), narrow(rope.shape[1]),
                             narrow(rope.shape[0]), narrow(pages.k.shape[0] * heads.page_size), 0},
         {rope.data, positions.data, slots.data, qkv.data, pages.k.data, pages.v.data,
          pages.k_scale.data, pages.v_scale.data});
}

PortableOps::AttentionTables PortableOps::put_attention_tables(
    Stream& stream, const AttentionBatch& batch, int tile_rows, int most_decoded,
    std::span<const std::int32_t> other_pages) {
  const std::size_t sequences = batch.context_len.size();
  FOVEA_CHECK(batch.query_start.size() == sequences + 1 && batch.prefix_len.size() == sequences &&
                  batch.page_table.size() == sequences * static_cast<std::size_t>(batch.max_pages),
              "{} contexts, {} row offsets, {} prefixes, {} pages", sequences,
              batch.query_start.size(), batch.prefix_len.size(), batch.page_table.size());
  AttentionTables tables{};
  std::vector<std::int32_t>& all = numbers_;
  const auto append = [&](std::span<const std::int32_t> values) {
    const std::uint32_t at = narrow(static_cast<std::int64_t>(all.size()));
    all.insert(all.end(), values.begin(), values.end());
    return at;
  };
  all.clear();
  append(batch.query_start);
  tables.context_at = append(batch.context_len);
  tables.prefix_at = append(batch.prefix_len);
  tables.pages_at = append(batch.page_table);
  tables.other_pages_at = append(other_pages);
  for (const bool decodes : {false, true}) {
    const std::uint32_t at = append({});
    (decodes ? tables.decode_tiles_at : tables.prompt_tiles_at) = at;
    for (std::size_t s = 0; s < sequences; ++s) {
      const std::int32_t rows = batch.query_start[s + 1] - batch.query_start[s];
      FOVEA_CHECK(rows >= 0 && batch.context_len[s] >= rows, "{} rows of a context of {}", rows,
                  batch.context_len[s]);
      if ((rows <= most_decoded) != decodes) continue;
      for (std::int32_t row = 0; row < rows; row += decodes ? 1 : tile_rows) {
        all.insert(all.end(), {static_cast<std::int32_t>(s), row});
      }
    }
    const auto count = static_cast<std::uint32_t>((all.size() - at) / 2);
    (decodes ? tables.num_decode_tiles : tables.num_prompt_tiles) = count;
  }
  const std::span<const std::byte> bytes = std::as_bytes(std::span(all));
  tables.memory = {DType::kU8,
                   {static_cast<std::int64_t>(bytes.size())},
                   attention_table_.put(launcher_, stream, bytes)};
  return tables;
}

void PortableOps::paged_attention(Stream& stream, TensorView qkv, KvPages pages, HeadLayout heads,
                                  const AttentionBatch& batch, TensorView out) {
  check_pages(pages, heads);
  FOVEA_CHECK(out.dtype == qkv.dtype, "qkv of {}, out of {}", dtype_name(qkv.dtype),
              dtype_name(out.dtype));
  // Two rows are cheaper one by one than as a tile of sixteen.
  const AttentionTables tables =
      put_attention_tables(stream, batch, kernels::PromptRows::kTileRows, 2);
  if (tables.memory.data == nullptr) return;
  const CachedKernels entries = kernels_for(qkv.dtype, pages.k.dtype);
  kernels::PagedAttentionParams params{narrow(heads.num_heads),
                                       narrow(heads.num_kv_heads),
                                       narrow(heads.head_dim),
                                       narrow(heads.page_size),
                                       narrow(batch.max_pages),
                                       tables.context_at,
                                       tables.prefix_at,
                                       tables.pages_at,
                                       tables.prompt_tiles_at,
                                       0,
                                       0,
                                       0};
  const std::initializer_list<const void*> buffers = {
      qkv.data,           pages.k.data,       pages.v.data, pages.k_scale.data,
      pages.v_scale.data, tables.memory.data, out.data};
  launch(stream, entries.prompt, {tables.num_prompt_tiles, params.num_heads}, kThreads,
         kernels::PromptRows::scratch_bytes(params.head_dim), params, buffers);
  params.tiles_at = tables.decode_tiles_at;
  launch(stream, entries.decode, {tables.num_decode_tiles, params.num_heads}, 32,
         kernels::DecodedRow::scratch_bytes(params.head_dim), params, buffers);
}

void PortableOps::copy_pages(Stream& stream, std::span<const KvPages> layers,
                             std::span<const std::int32_t> from, std::span<const std::int32_t> to) {
  FOVEA_CHECK(from.size() == to.size(), "{} pages to {}", from.size(), to.size());
  if (layers.empty() || from.empty()) return;
  numbers_.assign(from.begin(), from.end());
  numbers_.insert(numbers_.end(), to.begin(), to.end());
  for (const std::int32_t page : numbers_) {
    FOVEA_CHECK(page >= 0 && page < layers[0].k.shape[0], "page {} of {}", page,
                layers[0].k.shape[0]);
  }
  const std::byte* table = page_table_.put(launcher_, stream, std::as_bytes(std::span(numbers_)));
  if (table == nullptr) return;
  const std::uint32_t count = narrow(static_cast<std::int64_t>(from.size()));
  for (const KvPages& pages : layers) {
    for (const TensorView& pool : {pages.k, pages.v, pages.k_scale, pages.v_scale}) {
      if (pool.empty()) continue;
      const std::uint32_t words =
          narrow(static_cast<std::int64_t>(pool.rows(0, 1).size_bytes() / sizeof(std::uint32_t)));
      launch(stream, KernelId::copy_pages, {ceil_div(words, kThreads), count}, kThreads, 0,
             kernels::CopyPagesParams{words, count, 0, 0}, {table, pool.data});
    }
  }
}

}  // namespace fovea::portable
