#pragma once

// Attention in blocks of 32 keys, each softened for itself and joined to what came before. A row's
// result depends on its own keys alone: not on the rows that share its tile, nor on how a prompt
// was cut.

#include "common.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kMaxHeadDim = 256;
constexpr GPU_CONST u32 kKeyBlock = kWarpSize;  // a lane scores a key

GPU_FN float negative_infinity() { return as_f32(0xff800000u); }

/// Rows of one warp and warps of a block: a tile of a prompt, or a decoded row.
template <u32 kRows_, u32 kWarps_>
struct AttentionShape {
  static constexpr u32 kRowsPerWarp = kRows_;
  static constexpr u32 kWarps = kWarps_;
  static constexpr u32 kTileRows = kRows_ * kWarps_;
  static constexpr u32 scratch_bytes(u32 head_dim) {
    return 4 * (kKeyBlock * (head_dim + 1) + kTileRows * (head_dim + kKeyBlock) + kKeyBlock);
  }
};
using PromptRows = AttentionShape<4, 4>;
using DecodedRow = AttentionShape<1, 1>;

/// Which keys the rows of a tile see. Row r of the sequence has position `first_position` + r.
struct Visibility {
  u32 first_position;
  u32 prefix;
  u32 num_keys;
};
GPU_FN u32 visible_keys(Visibility v, u32 row) {
  const u32 position = v.first_position + row;
  u32 seen = position + 1;
  if (position < v.prefix && v.prefix > seen) seen = v.prefix;
  return seen < v.num_keys ? seen : v.num_keys;
}

/// Where the key at a position lies: in a page, or in the rows of a packed qkv.
struct PagedKeys {
  const GPU_GLOBAL i32* page_table;
  u32 page_size;
  u32 num_kv_heads;
  u32 kv_head;
};
struct PackedKeys {
  u32 first_row;
};
GPU_FN u32 key_row(PagedKeys keys, u32 position) {
  const u32 page = static_cast<u32>(keys.page_table[position / keys.page_size]);
  return (page * keys.num_kv_heads + keys.kv_head) * keys.page_size + position % keys.page_size;
}
GPU_FN u32 key_row(PackedKeys keys, u32 position) { return keys.first_row + position; }

// Element d of a key or value; codes count in steps.
template <class T>
GPU_FN float cached(const GPU_GLOBAL T* base, u64 at, const GPU_GLOBAL float* steps, u32 row) {
  return largest_code(base) > 0 ? to_f32(base[at]) * steps[row] : to_f32(base[at]);
}

/// K and V of one head: rows of head_dim elements, row_stride apart.
template <class T>
struct KeyValues {
  const GPU_GLOBAL T* k;
  const GPU_GLOBAL T* v;
  const GPU_GLOBAL float* k_steps;  // of codes, by row
  const GPU_GLOBAL float* v_steps;
  u32 row_stride;
};

// Brings the keys of a block to shared memory: their rows and their elements.
template <class Cached, class Keys>
GPU_FN void stage_keys(Thread t, u32 head_dim, KeyValues<Cached> kv, Keys keys, u32 begin,
                       u32 count, u32 num_threads, GPU_SHARED float* k_tile,
                       GPU_SHARED u32* key_rows) {
  block_sync(t);
  if (t.index < count) key_rows[t.index] = key_row(keys, begin + t.index);
  block_sync(t);
  for (u32 i = t.index; i < count * head_dim; i += num_threads) {
    const u32 key = i / head_dim;
    const u32 d = i % head_dim;
    const u64 at = static_cast<u64>(key_rows[key]) * kv.row_stride + d;
    k_tile[key * (head_dim + 1) + d] = cached<Cached>(kv.k, at, kv.k_steps, key_rows[key]);
  }
  block_sync(t);
}

// The dimensions of a lane: lane, lane + 32, ...
constexpr GPU_CONST u32 kLaneDims = kMaxHeadDim / kWarpSize;
struct LaneDims {
  float at[kLaneDims];
};

// The values of a block's keys, weighted and summed.
template <class Cached>
GPU_FN LaneDims weighted_values(Thread t, u32 head_dim, KeyValues<Cached> kv, u32 count,
                                GPU_SHARED const float* weights, GPU_SHARED const u32* key_rows) {
  LaneDims sums;
  GPU_UNROLL
  for (u32 i = 0; i < kLaneDims; ++i) sums.at[i] = 0;
  for (u32 j = 0; j < count; ++j) {
    GPU_UNROLL
    for (u32 i = 0; i < kLaneDims; ++i) {
      const u32 d = t.lane + i * kWarpSize;
      if (d >= head_dim) break;
      const u64 at = static_cast<u64>(key_rows[j]) * kv.row_stride + d;
      sums.at[i] =
          gpu_fma(weights[j], cached<Cached>(kv.v, at, kv.v_steps, key_rows[j]), sums.at[i]);
    }
  }
  return sums;
}

// One tile of rows of one head. q and out point to its first row; `row` is that row's number in the
// sequence, num_rows how many the tile has.
template <class Shape, class T, class Cached, class Keys>
GPU_FN void attend(Thread t, u32 head_dim, const GPU_GLOBAL T* q, u32 q_stride, u32 row,
                   u32 num_rows, Visibility visibility, KeyValues<Cached> kv, Keys keys,
                   GPU_GLOBAL T* out, u32 out_stride, GPU_SHARED char* scratch) {
  constexpr u32 kRows = Shape::kRowsPerWarp;
  constexpr u32 kThreads = Shape::kWarps * kWarpSize;
  GPU_SHARED float* k_tile = reinterpret_cast<GPU_SHARED float*>(scratch);  // [key][head_dim + 1]
  GPU_SHARED float* q_tile = k_tile + kKeyBlock * (head_dim + 1);           // [row][head_dim]
  GPU_SHARED float* weights = q_tile + Shape::kTileRows * head_dim;         // [row][key]
  GPU_SHARED u32* key_rows =
      reinterpret_cast<GPU_SHARED u32*>(weights + Shape::kTileRows * kKeyBlock);

  // Scores in powers of two: one product less for each exponential.
  const float scale = 1.44269504f / gpu_sqrt(static_cast<float>(head_dim));
  for (u32 i = t.index; i < num_rows * head_dim; i += kThreads) {
    q_tile[i] = to_f32(q[static_cast<u64>(i / head_dim) * q_stride + i % head_dim]) * scale;
  }
  LaneDims sums[kRows];
  float largest[kRows];
  float totals[kRows];
  u32 seen[kRows];
  GPU_UNROLL
  for (u32 r = 0; r < kRows; ++r) {
    const u32 in_tile = t.warp * kRows + r;
    seen[r] = in_tile < num_rows ? visible_keys(visibility, row + in_tile) : 0;
    largest[r] = negative_infinity();
    totals[r] = 0;
    GPU_UNROLL
    for (u32 i = 0; i < kLaneDims; ++i) sums[r].at[i] = 0;
  }
  const u32 end = visible_keys(visibility, row + num_rows - 1);  // later rows see no less
  for (u32 begin = 0; begin < end; begin += kKeyBlock) {
    const u32 count = end - begin < kKeyBlock ? end - begin : kKeyBlock;
    stage_keys(t, head_dim, kv, keys, begin, count, kThreads, k_tile, key_rows);
    GPU_UNROLL
    for (u32 r = 0; r < kRows; ++r) {
      if (begin >= seen[r]) continue;  // the same in the whole warp
      const u32 in_tile = t.warp * kRows + r;
      const u32 keys_here = seen[r] - begin < kKeyBlock ? seen[r] - begin : kKeyBlock;
      float score = 0;
      GPU_SHARED const float* query = q_tile + in_tile * head_dim;
      GPU_SHARED const float* key = k_tile + t.lane * (head_dim + 1);
      if (t.lane < keys_here) {
        for (u32 d = 0; d < head_dim; ++d) score = gpu_fma(query[d], key[d], score);
      } else {
        score = negative_infinity();
      }
      const float block_largest = warp_max(t, score);
      const float weight = t.lane < keys_here ? gpu_exp2(score - block_largest) : 0.0f;
      const float block_total = warp_sum(t, weight);
      weights[in_tile * kKeyBlock + t.lane] = weight;
      warp_sync(t);
      const float joined = gpu_max(largest[r], block_largest);
      const float earlier = gpu_exp2(largest[r] - joined);
      const float now = gpu_exp2(block_largest - joined);
      largest[r] = joined;
      totals[r] = gpu_fma(totals[r], earlier, block_total * now);
      const LaneDims block_sums =
          weighted_values(t, head_dim, kv, keys_here, weights + in_tile * kKeyBlock, key_rows);
      GPU_UNROLL
      for (u32 i = 0; i < kLaneDims; ++i)
        sums[r].at[i] = gpu_fma(sums[r].at[i], earlier, block_sums.at[i] * now);
      warp_sync(t);
    }
  }
  GPU_UNROLL
  for (u32 r = 0; r < kRows; ++r) {
    const u32 in_tile = t.warp * kRows + r;
    if (in_tile >= num_rows) continue;
    GPU_UNROLL
    for (u32 i = 0; i < kLaneDims; ++i) {
      const u32 d = t.lane + i * kWarpSize;
      if (d >= head_dim) break;
      out[static_cast<u64>(in_tile) * out_stride + d] = from_f32<T>(sums[r].at[i] / totals[r]);
    }
  }
}

struct SelfAttentionParams {
  u32 tokens;  // of a crop
  u32 num_heads;
  u32 head_dim;
  u32 tiles;  // of a crop
};

// qkv [crops * tokens, 3 * dim] -> out [crops * tokens, dim]; every row sees its whole crop. Grid:
// x = tile of rows, y = head, z = crop.
template <class T, class Shape>
GPU_FN void self_attention(Thread t, const GPU_CONST SelfAttentionParams& p,
                           const GPU_GLOBAL T* qkv, GPU_GLOBAL T* out, GPU_SHARED char* scratch) {
  const u32 dim = p.num_heads * p.head_dim;
  const u32 row = t.block.x * Shape::kTileRows;
  const u32 left = p.tokens - row;
  const u32 first_row = t.block.z * p.tokens;
  KeyValues<T> kv;
  kv.k = qkv + dim + t.block.y * p.head_dim;
  kv.v = kv.k + dim;
  kv.k_steps = nullptr;
  kv.v_steps = nullptr;
  kv.row_stride = 3 * dim;
  PackedKeys keys;
  keys.first_row = first_row;
  Visibility visibility;
  visibility.first_position = 0;
  visibility.prefix = p.tokens;
  visibility.num_keys = p.tokens;
  attend<Shape>(
      t, p.head_dim, qkv + static_cast<u64>(first_row + row) * 3 * dim + t.block.y * p.head_dim,
      3 * dim, row, left < Shape::kTileRows ? left : Shape::kTileRows, visibility, kv, keys,
      out + static_cast<u64>(first_row + row) * dim + t.block.y * p.head_dim, dim, scratch);
}

struct PagedAttentionParams {
  u32 num_heads;
  u32 num_kv_heads;
  u32 head_dim;
  u32 page_size;
  u32 max_pages;
  u32 context_at;  // where the parts of `tables` begin; query_start lies at 0
  u32 prefix_at;
  u32 pages_at;
  u32 tiles_at;  // [tiles][2]: sequence, first row in it
  u32 pad0_, pad1_, pad2_;
};

// Attention of the rows of a step over their pages, under the prefix-LM mask. Grid: x = tile,
// y = head.
template <class T, class Cached, class Shape>
GPU_FN void paged_attention(Thread t, const GPU_CONST PagedAttentionParams& p,
                            const GPU_GLOBAL T* qkv, const GPU_GLOBAL Cached* k_pages,
                            const GPU_GLOBAL Cached* v_pages, const GPU_GLOBAL float* k_steps,
                            const GPU_GLOBAL float* v_steps, const GPU_GLOBAL i32* tables,
                            GPU_GLOBAL T* out, GPU_SHARED char* scratch) {
  const u32 sequence = static_cast<u32>(tables[p.tiles_at + 2 * t.block.x]);
  const u32 row = static_cast<u32>(tables[p.tiles_at + 2 * t.block.x + 1]);
  const u32 begin = static_cast<u32>(tables[sequence]);
  const u32 num_rows = static_cast<u32>(tables[sequence + 1]) - begin;
  const u32 left = num_rows - row;
  const u32 context = static_cast<u32>(tables[p.context_at + sequence]);
  const u32 head = t.block.y;
  KeyValues<Cached> kv;
  kv.k = k_pages;
  kv.v = v_pages;
  kv.k_steps = k_steps;
  kv.v_steps = v_steps;
  kv.row_stride = p.head_dim;
  PagedKeys keys;
  keys.page_table = tables + p.pages_at + static_cast<u64>(sequence) * p.max_pages;
  keys.page_size = p.page_size;
  keys.num_kv_heads = p.num_kv_heads;
  keys.kv_head = head * p.num_kv_heads / p.num_heads;
  Visibility visibility;
  visibility.first_position = context - num_rows;
  visibility.prefix = static_cast<u32>(tables[p.prefix_at + sequence]);
  visibility.num_keys = context;
  const u32 q_stride = (p.num_heads + 2 * p.num_kv_heads) * p.head_dim;
  const u32 out_stride = p.num_heads * p.head_dim;
  attend<Shape>(t, p.head_dim, qkv + static_cast<u64>(begin + row) * q_stride + head * p.head_dim,
                q_stride, row, left < Shape::kTileRows ? left : Shape::kTileRows, visibility, kv,
                keys, out + static_cast<u64>(begin + row) * out_stride + head * p.head_dim,
                out_stride, scratch);
}

}  // namespace kernels
}  // namespace fovea
