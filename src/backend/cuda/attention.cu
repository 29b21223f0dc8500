#include "backend/cuda/native_kernels.h"
#include "backend/cuda/tensor_core.h"
#include "kernels/attention.h"

namespace fovea::cuda {
namespace {

using kernels::key_row;
using kernels::PackedKeys;
using kernels::PagedKeys;
using kernels::Visibility;
using kernels::visible_keys;

constexpr int kWarps = 4;
constexpr int kKeys = 64;  // of a tile
constexpr int kThreads = kWarps * 32;
static_assert(kAttentionTileRows == kWarps * 16);

// One tile of 64 rows of one head: `num_rows` of them are there, q points to the first, which is
// row `row` of the sequence.
struct Tile {
  const __nv_bfloat16* q;
  int q_stride;
  int row, num_rows;
  Visibility visibility;
  const __nv_bfloat16* k;
  const __nv_bfloat16* v;
  int kv_stride;
  __nv_bfloat16* out;
  int out_stride;
};

// What tensor cores multiply at a time is 16 deep.
template <int kDim>
constexpr int kPadded = (kDim + 15) / 16 * 16;

// Flash attention: a warp holds 16 rows, keys come in tiles of 64 through shared memory, the next
// tile while this one is computed. kDim is at least head_dim and a multiple of 8; what lies beyond
// head_dim is zero.
template <int kDim, class Keys>
__device__ __forceinline__ void attend_tile(const Tile& tile, int head_dim, Keys keys,
                                            __nv_bfloat16* shared) {
  constexpr int kDepth = kPadded<kDim>;
  constexpr int kStride = kDepth + 8;  // keeps the lanes of a load in different banks
  constexpr int kTileElements = kKeys * kStride;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int group = lane / 4, quarter = lane % 4;

  const auto load = [&](int begin, int stage) {
    __nv_bfloat16* k_tile = shared + stage * 2 * kTileElements;
    __nv_bfloat16* v_tile = k_tile + kTileElements;
    constexpr int kChunks = kDepth / 8;
    for (int i = threadIdx.x; i < kKeys * kChunks; i += kThreads) {
      const int key = i / kChunks, d = i % kChunks * 8;
      const bool inside = begin + key < static_cast<int>(tile.visibility.num_keys) && d < head_dim;
      const std::size_t at =
          inside ? static_cast<std::size_t>(key_row(keys, begin + key)) * tile.kv_stride + d : 0;
      copy_16(k_tile + key * kStride + d, tile.k + at, inside);
      copy_16(v_tile + key * kStride + d, tile.v + at, inside);
    }
    commit_copies();
  };

  // The rows' queries as the left side of the products.
  const int upper = warp * 16 + group, lower = upper + 8;
  unsigned q[kDepth / 16][4];
#pragma unroll
  for (int c = 0; c < kDepth / 16; ++c) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int row = part % 2 == 0 ? upper : lower;
      const int d = c * 16 + part / 2 * 8 + quarter * 2;
      q[c][part] = row < tile.num_rows && d < head_dim
                       ? *reinterpret_cast<const unsigned*>(
                             tile.q + static_cast<std::size_t>(row) * tile.q_stride + d)
                       : 0;
    }
  }
  const float scale = 1.44269504f * rsqrtf(static_cast<float>(head_dim));
  const int seen[2] = {
      upper < tile.num_rows ? static_cast<int>(visible_keys(tile.visibility, tile.row + upper)) : 0,
      lower < tile.num_rows ? static_cast<int>(visible_keys(tile.visibility, tile.row + lower))
                            : 0};
  const int end = static_cast<int>(visible_keys(tile.visibility, tile.row + tile.num_rows - 1));
  // Keys in front of this are seen by all rows of the warp.
  const int seen_by_all = __reduce_min_sync(~0u, min(seen[0], seen[1]));
  float largest[2] = {-1e30f, -1e30f};
  float totals[2] = {0, 0};
  float sums[kDim / 8][4] = {};

  load(0, 0);
  for (int begin = 0, stage = 0; begin < end; begin += kKeys, stage ^= 1) {
    if (begin + kKeys < end) {
      load(begin + kKeys, stage ^ 1);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    __syncthreads();
    const __nv_bfloat16* k_tile = shared + stage * 2 * kTileElements;
    const __nv_bfloat16* v_tile = k_tile + kTileElements;
    float scores[kKeys / 8][4] = {};
    const __nv_bfloat16* key = k_tile + (lane / 16 * 8 + lane % 8) * kStride + lane / 8 % 2 * 8;
#pragma unroll
    for (int n = 0; n < kKeys / 8; n += 2) {
#pragma unroll
      for (int c = 0; c < kDepth / 16; ++c) {
        unsigned keys_of[4];
        load_matrices(keys_of, key + n * 8 * kStride + c * 16);
        multiply_16x8(scores[n], q[c], keys_of[0], keys_of[1]);
        multiply_16x8(scores[n + 1], q[c], keys_of[2], keys_of[3]);
      }
    }
    if (begin + kKeys > seen_by_all) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int position = begin + n * 8 + quarter * 2 + i % 2;
          if (position >= seen[i / 2]) scores[n][i] = -1e30f;
        }
      }
    }
    float tile_largest[2] = {-1e30f, -1e30f};
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        tile_largest[i / 2] = fmaxf(tile_largest[i / 2], scores[n][i]);
      }
    }
    float offset[2];  // every row sees its first key: there is a largest score from then on
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      tile_largest[h] = fmaxf(tile_largest[h], __shfl_xor_sync(~0u, tile_largest[h], 1));
      tile_largest[h] = fmaxf(tile_largest[h], __shfl_xor_sync(~0u, tile_largest[h], 2));
      const float joined = fmaxf(largest[h], tile_largest[h]);
      const float earlier = fast_exp2((largest[h] - joined) * scale);
      largest[h] = joined;
      offset[h] = -joined * scale;
      totals[h] *= earlier;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        sums[d][2 * h] *= earlier;
        sums[d][2 * h + 1] *= earlier;
      }
    }
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float weight = fast_exp2(__fmaf_rn(scores[n][i], scale, offset[i / 2]));
        scores[n][i] = weight;
        totals[i / 2] += weight;
      }
    }
#pragma unroll
    for (int c = 0; c < kKeys / 16; ++c) {
      const unsigned weights[4] = {pair_of(scores[2 * c][0], scores[2 * c][1]),
                                   pair_of(scores[2 * c][2], scores[2 * c][3]),
                                   pair_of(scores[2 * c + 1][0], scores[2 * c + 1][1]),
                                   pair_of(scores[2 * c + 1][2], scores[2 * c + 1][3])};
      const __nv_bfloat16* row = v_tile + (c * 16 + lane % 16) * kStride + lane / 16 * 8;
#pragma unroll
      for (int d = 0; d < kDepth / 16; ++d) {
        unsigned values[4];
        load_transposed(values, row + d * 16);
        multiply_16x8(sums[2 * d], weights, values[0], values[1]);
        if (2 * d + 1 < kDim / 8) multiply_16x8(sums[2 * d + 1], weights, values[2], values[3]);
      }
    }
    __syncthreads();  // before the tile is overwritten
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    totals[h] += __shfl_xor_sync(~0u, totals[h], 1);
    totals[h] += __shfl_xor_sync(~0u, totals[h], 2);
    const int row = h == 0 ? upper : lower;
    if (row >= tile.num_rows) continue;
    const float inverse = 1.0f / totals[h];
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      const int at = d * 8 + quarter * 2;
      if (at >= head_dim) continue;
      *reinterpret_cast<unsigned*>(tile.out + static_cast<std::size_t>(row) * tile.out_stride +
                                   at) =
          pair_of(sums[d][2 * h] * inverse, sums[d][2 * h + 1] * inverse);
    }
  }
}

template <int kDim>
constexpr int shared_bytes() {
  return 2 * 2 * kKeys * (kPadded<kDim> + 8) * static_cast<int>(sizeof(__nv_bfloat16));
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, kDim <= 80 ? 4 : 2) attend_crops(TensorAttention p) {
  extern __shared__ __align__(16) char scratch[];
  const int dim = p.num_heads * p.head_dim;
  const int row = blockIdx.x * kAttentionTileRows;
  const std::size_t first_row = static_cast<std::size_t>(blockIdx.z) * p.tokens;
  const auto* qkv = static_cast<const __nv_bfloat16*>(p.qkv) + blockIdx.y * p.head_dim;
  Tile tile;
  tile.q = qkv + (first_row + row) * 3 * dim;
  tile.q_stride = 3 * dim;
  tile.row = row;
  tile.num_rows = min(kAttentionTileRows, p.tokens - row);
  tile.visibility.first_position = 0;
  tile.visibility.prefix = p.tokens;
  tile.visibility.num_keys = p.tokens;
  tile.k = qkv + dim;
  tile.v = qkv + 2 * dim;
  tile.kv_stride = 3 * dim;
  tile.out = static_cast<__nv_bfloat16*>(p.out) + (first_row + row) * dim + blockIdx.y * p.head_dim;
  tile.out_stride = dim;
  PackedKeys keys;
  keys.first_row = static_cast<unsigned>(first_row);
  attend_tile<kDim>(tile, p.head_dim, keys, reinterpret_cast<__nv_bfloat16*>(scratch));
}

// Where the rows of tile `index` of a head lie.
__device__ __forceinline__ Tile paged_tile(const TensorAttention& p, int index, int head,
                                           PagedKeys& keys) {
  const int sequence = p.tables[p.tiles_at + 2 * index];
  const int row = p.tables[p.tiles_at + 2 * index + 1];
  const int begin = p.tables[sequence];
  const int num_rows = p.tables[sequence + 1] - begin;
  const int context = p.tables[p.context_at + sequence];
  Tile tile;
  tile.q_stride = (p.num_heads + 2 * p.num_kv_heads) * p.head_dim;
  tile.q = static_cast<const __nv_bfloat16*>(p.qkv) +
           static_cast<std::size_t>(begin + row) * tile.q_stride + head * p.head_dim;
  tile.row = row;
  tile.num_rows = min(kAttentionTileRows, num_rows - row);
  tile.visibility.first_position = context - num_rows;
  tile.visibility.prefix = p.tables[p.prefix_at + sequence];
  tile.visibility.num_keys = context;
  tile.k = static_cast<const __nv_bfloat16*>(p.k_pages);
  tile.v = static_cast<const __nv_bfloat16*>(p.v_pages);
  tile.kv_stride = p.head_dim;
  tile.out_stride = p.num_heads * p.head_dim;
  tile.out = static_cast<__nv_bfloat16*>(p.out) +
             static_cast<std::size_t>(begin + row) * tile.out_stride + head * p.head_dim;
  keys.page_table = p.tables + p.pages_at + static_cast<std::size_t>(sequence) * p.max_pages;
  keys.page_size = p.page_size;
  keys.num_kv_heads = p.num_kv_heads;
  keys.kv_head = head * p.num_kv_heads / p.num_heads;
  return tile;
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, kDim <= 80 ? 4 : 2) attend_prompts(TensorAttention p) {
  extern __shared__ __align__(16) char scratch[];
  PagedKeys keys;
  const Tile tile = paged_tile(p, blockIdx.x, blockIdx.y, keys);
  attend_tile<kDim>(tile, p.head_dim, keys, reinterpret_cast<__nv_bfloat16*>(scratch));
}

template <int kDim>
cudaError_t run(const TensorAttention& p, bool paged, cudaStream_t stream) {
  constexpr int kBytes = shared_bytes<kDim>();
  if (paged) {
    if (kBytes > 48 << 10) {
      cudaFuncSetAttribute(attend_prompts<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           kBytes);
    }
    attend_prompts<kDim><<<dim3(p.num_tiles, p.num_heads), kThreads, kBytes, stream>>>(p);
  } else {
    if (kBytes > 48 << 10) {
      cudaFuncSetAttribute(attend_crops<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    }
    const unsigned tiles = (p.tokens + kAttentionTileRows - 1) / kAttentionTileRows;
    attend_crops<kDim><<<dim3(tiles, p.num_heads, p.num_crops), kThreads, kBytes, stream>>>(p);
  }
  return cudaGetLastError();
}

cudaError_t run_for_dim(const TensorAttention& p, bool paged, cudaStream_t stream) {
  if (p.head_dim <= 32) return run<32>(p, paged, stream);
  if (p.head_dim <= 64) return run<64>(p, paged, stream);
  if (p.head_dim <= 72) return run<72>(p, paged, stream);
  if (p.head_dim <= 80) return run<80>(p, paged, stream);
  return run<128>(p, paged, stream);
}

}  // namespace

cudaError_t self_attention(const TensorAttention& args, KernelStream stream) {
  return run_for_dim(args, false, stream.handle);
}

cudaError_t prompt_attention(const TensorAttention& args, KernelStream stream) {
  return run_for_dim(args, true, stream.handle);
}

}  // namespace fovea::cuda
