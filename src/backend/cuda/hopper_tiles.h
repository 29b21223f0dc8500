#pragma once

// Where Hopper's attention keeps what it works on: the layout of shared memory, the tiles of rows
// and keys, and the copies that bring them. For .cu files that are compiled for sm_90a alone.

#include <cuda.h>

#include "backend/cuda/hopper_attention.h"
#include "backend/cuda/wgmma.h"
#include "kernels/attention.h"

namespace fovea::cuda::hopper {

inline constexpr int kGroups = 2;  // warpgroups of a block, each with 64 rows
inline constexpr int kRows = HopperAttention::kTileRows;
inline constexpr int kThreads = kGroups * 128;
inline constexpr int kKeys = 96;            // of a tile
inline constexpr int kChunks = kKeys / 16;  // what a product of weights and values takes at a time
inline constexpr int kPageRows = 16;        // of a page, copied at a time
inline constexpr int kStages = 3, kAhead = 2;  // tiles in shared memory; how early a copy begins
static_assert(kRows == kGroups * 64);

// Heads of more than 64 are split: 64 dimensions in swizzled rows of 128 bytes, and a tail in rows
// of 32, zero beyond the head.
template <int kDim>
struct Layout {
  static constexpr bool kHasTail = kDim > 64;
  static constexpr int kMainBytes = kKeys * 128, kTailBytes = kHasTail ? kKeys * 32 : 0;
  static constexpr int kValuesAt = kMainBytes;  // in a stage, whose keys come first
  static constexpr int kKeyTailAt = 2 * kMainBytes, kValueTailAt = kKeyTailAt + kTailBytes;
  static constexpr int kStageBytes = kValueTailAt + kTailBytes;
  static constexpr int kQueryTailAt = kRows * 128;
  static constexpr int kQueryBytes = kRows * (kHasTail ? 160 : 128);
  static constexpr int kBarriersAt = kQueryBytes + kStages * kStageBytes;
  static constexpr int kAlignment = 1024;  // of swizzled rows
  static constexpr int kSharedBytes = kAlignment + kBarriersAt + (1 + 3 * kStages) * 8;
  static_assert(kStageBytes % kAlignment == 0 && kQueryBytes % kAlignment == 0);
};

// Boxes of crops have the coordinates (dimension, head, row, crop), boxes of pages (dimension,
// row in the page, head, page).
struct Call {
  CUtensorMap query, query_tail, keys, keys_tail, values, values_tail;
  TensorAttention args;
};

// Where a block's rows lie and what they see.
struct Tile {
  int row, num_rows;      // of the sequence or the crop
  std::size_t first_row;  // of the sequence in qkv and out
  kernels::Visibility visibility;
  const int* pages;  // of the sequence
  __device__ int num_keys() const { return static_cast<int>(visibility.num_keys); }
  __device__ int seen(int row_in_tile) const {
    return static_cast<int>(
        kernels::visible_keys(visibility, row + min(row_in_tile, num_rows - 1)));
  }
};

template <bool kPaged>
__device__ __forceinline__ Tile find_tile(const TensorAttention& p) {
  Tile tile;
  if constexpr (kPaged) {
    const int sequence = p.tables[p.tiles_at + 2 * blockIdx.x];
    tile.row = p.tables[p.tiles_at + 2 * blockIdx.x + 1];
    const int begin = p.tables[sequence], rows = p.tables[sequence + 1] - begin;
    const int context = p.tables[p.context_at + sequence];
    tile.num_rows = min(kRows, rows - tile.row);
    tile.first_row = begin;
    tile.visibility.first_position = context - rows;
    tile.visibility.prefix = p.tables[p.prefix_at + sequence];
    tile.visibility.num_keys = context;
    tile.pages = p.tables + p.pages_at + static_cast<std::size_t>(sequence) * p.max_pages;
  } else {
    tile.row = blockIdx.x * kRows;
    tile.num_rows = min(kRows, p.tokens - tile.row);
    tile.first_row = static_cast<std::size_t>(blockIdx.z) * p.tokens;
    tile.visibility.first_position = 0;
    tile.visibility.prefix = p.tokens;
    tile.visibility.num_keys = p.tokens;
    tile.pages = nullptr;
  }
  return tile;
}

// Shared memory, by address: queries, stages of keys and values, barriers.
template <int kDim>
struct Memory {
  using At = Layout<kDim>;
  unsigned queries;
  __device__ unsigned stage(int tile) const {
    return queries + At::kQueryBytes + tile % kStages * At::kStageBytes;
  }
  __device__ unsigned queries_here() const { return queries + At::kBarriersAt; }
  __device__ unsigned keys_here(int tile) const { return queries_here() + 8 + tile % kStages * 8; }
  __device__ unsigned values_here(int tile) const { return keys_here(tile) + kStages * 8; }
  __device__ unsigned is_free(int tile) const { return keys_here(tile) + 2 * kStages * 8; }
  // The parity of the phase that a stage is in with this tile.
  __device__ static unsigned parity(int tile) { return tile / kStages & 1; }
};

template <int kDim>
__device__ __forceinline__ void make_barriers(Memory<kDim> memory) {
  make_barrier(memory.queries_here(), 1);
  for (int stage = 0; stage < kStages; ++stage) {
    make_barrier(memory.keys_here(stage), 1);
    make_barrier(memory.values_here(stage), 1);
    make_barrier(memory.is_free(stage), kGroups);
  }
  publish_barriers();
}

template <int kDim, bool kPaged>
__device__ __forceinline__ void copy_queries(const Call& call, const Tile& tile,
                                             Memory<kDim> memory) {
  using At = Layout<kDim>;
  const int row = tile.row + (kPaged ? static_cast<int>(tile.first_row) : 0);
  const int crop = kPaged ? 0 : blockIdx.z;
  arrive_expecting(memory.queries_here(), At::kQueryBytes);
  copy_box(memory.queries, &call.query, 0, blockIdx.y, row, crop, memory.queries_here());
  if constexpr (At::kHasTail) {
    copy_box(memory.queries + At::kQueryTailAt, &call.query_tail, 64, blockIdx.y, row, crop,
             memory.queries_here());
  }
}

// A tile of pages comes in a dozen boxes, for which four warps share the work, since it holds them
// up; a tile of a crop in up to four, which are cheaper than four warps' waiting.
template <bool kPaged>
constexpr int kCopiers = kPaged ? 4 : 1;

// Asks for a tile of keys and values, once nobody reads what was in its stage: for the first lanes
// of the first kCopiers warps.
template <int kDim, bool kPaged>
__device__ __forceinline__ void copy_keys(const Call& call, const Tile& tile, int index,
                                          Memory<kDim> memory) {
  using At = Layout<kDim>;
  const int copier = threadIdx.x / 32, begin = index * kKeys;
  const unsigned keys = memory.stage(index), values = keys + At::kValuesAt;
  const unsigned keys_here = memory.keys_here(index), values_here = memory.values_here(index);
  if (index >= kStages) wait_for(memory.is_free(index), memory.parity(index - kStages));
  if (copier == 0) {
    arrive_expecting(keys_here, At::kMainBytes + At::kTailBytes);
    arrive_expecting(values_here, At::kMainBytes + At::kTailBytes);
  }
  if constexpr (kPaged) {
    const TensorAttention& p = call.args;
    const int head = blockIdx.y * p.num_kv_heads / p.num_heads;
#pragma unroll
    for (int c = 0; c < kChunks; c += kCopiers<kPaged>) {
      if (c + copier >= kChunks) break;
      const int first = (c + copier) * kPageRows, position = begin + first;
      const int page = position < tile.num_keys() ? tile.pages[position / p.page_size]
                                                  : p.num_pages;  // beyond the tensor: zeros
      const int row = position % p.page_size;
      copy_box(keys + first * 128, &call.keys, 0, row, head, page, keys_here);
      copy_box(values + first * 128, &call.values, 0, row, head, page, values_here);
    }
  } else {
    const int head = blockIdx.y, crop = blockIdx.z;
    copy_box(keys, &call.keys, 0, head, begin, crop, keys_here);
    if constexpr (At::kHasTail) {
      copy_box(keys + At::kKeyTailAt, &call.keys_tail, 64, head, begin, crop, keys_here);
    }
    copy_box(values, &call.values, 0, head, begin, crop, values_here);
    if constexpr (At::kHasTail) {
      copy_box(keys + At::kValueTailAt, &call.values_tail, 64, head, begin, crop, values_here);
    }
  }
}

// The rest of a page that is not full may hold anything, infinities too: zeros for its values.
// Every warpgroup writes them for itself.
__device__ __forceinline__ void clear_values(unsigned values, int first_row) {
  const int thread = threadIdx.x % 128, row = first_row + thread / 8;
  if (row < (first_row + kPageRows - 1) / kPageRows * kPageRows) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};"
                 :
                 : "r"(values + row * 128 + thread % 8 * 16), "r"(0)
                 : "memory");
  }
  publish_to_products();
  asm volatile("bar.sync %0, 128;" : : "r"(1 + static_cast<int>(threadIdx.x / 128)) : "memory");
}

}  // namespace fovea::cuda::hopper
