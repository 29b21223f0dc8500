#include "backend/cuda/hopper_attention.h"
#include "backend/cuda/hopper_tiles.h"
#include "backend/cuda/tensor_core.h"
#include "backend/cuda/tensor_maps.h"
#include "backend/cuda/wgmma.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

using namespace hopper;

constexpr int kMostGrowth = 8;           // of scores, as a power of two, before sums are rescaled
constexpr float kLog2OfE = 1.44269504f;  // weights are powers of two

// The softmax of a thread's two rows: scores count from `largest`, which lags behind the largest
// score by up to 2^kMostGrowth so that sums are seldom rescaled.
template <int kDim>
struct Softmax {
  float largest[2] = {-1e30f, -1e30f};
  float totals[2] = {0, 0};
  float scale = kLog2OfE * rsqrtf(static_cast<float>(kDim));

  __device__ __forceinline__ void take_largest(const float (&scores)[kKeys / 8][4],
                                               float (&sums)[kDim / 8][4], bool is_first) {
    float top[4] = {scores[0][0], scores[0][1], scores[0][2], scores[0][3]};
#pragma unroll
    for (int n = 1; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) top[i] = fmaxf(top[i], scores[n][i]);
    }
    const float allowed = static_cast<float>(kMostGrowth) / scale;
    float here[2] = {fmaxf(top[0], top[1]), fmaxf(top[2], top[3])};
    const bool grew = here[0] > largest[0] + allowed || here[1] > largest[1] + allowed;
    if (!__any_sync(~0u, grew)) return;
    float factors[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      here[h] = fmaxf(here[h], __shfl_xor_sync(~0u, here[h], 1));
      here[h] = fmaxf(here[h], __shfl_xor_sync(~0u, here[h], 2));
      // A row is rescaled for its own scores alone, whoever shares its warp.
      const bool row_grew = here[h] > largest[h] + allowed;
      factors[h] = row_grew ? fast_exp2((largest[h] - here[h]) * scale) : 1.0f;
      if (row_grew) largest[h] = here[h];
      totals[h] *= factors[h];
    }
    if (is_first) return;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[d][i] *= factors[i / 2];
    }
  }

  // totals become what sums are to be multiplied with.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      totals[h] += __shfl_xor_sync(~0u, totals[h], 1);
      totals[h] += __shfl_xor_sync(~0u, totals[h], 2);
      totals[h] = 1.0f / totals[h];
    }
  }

  // The weights of 16 keys as the left side of a product.
  __device__ __forceinline__ void weigh(const float (&scores)[kKeys / 8][4], int chunk,
                                        unsigned (&weights)[4]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float offset = -largest[h] * scale;
      float w[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        w[i] = fast_exp2(__fmaf_rn(scores[2 * chunk + i / 2][2 * h + i % 2], scale, offset));
      }
      totals[h] += (w[0] + w[1]) + (w[2] + w[3]);
      weights[h] = pair_of(w[0], w[1]);
      weights[2 + h] = pair_of(w[2], w[3]);
    }
  }
};

// A warp's 16 rows, each times a factor of its own, by way of shared memory: every lane writes 16
// bytes at a time. `main` and `tail` hold 16 rows of 128 and of 16 bytes.
template <int kDim>
__device__ __forceinline__ void put_rows(const float (&sums)[kDim / 8][4],
                                         const float (&factors)[2], unsigned main, unsigned tail,
                                         __nv_bfloat16* out, int stride, int num_rows) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = lane / 4 + h * 8;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      const unsigned piece =
          d < 8 ? main + row * 128 + (d ^ row % 8) * 16 : tail + row * 16;  // spread over the banks
      const unsigned pair = pair_of(sums[d][2 * h] * factors[h], sums[d][2 * h + 1] * factors[h]);
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(piece + lane % 4 * 4), "r"(pair) : "memory");
    }
  }
  __syncwarp();
  const auto put = [&](unsigned from, int row, int column) {
    uint4 piece;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(piece.x), "=r"(piece.y), "=r"(piece.z), "=r"(piece.w)
                 : "r"(from)
                 : "memory");
    if (row >= num_rows) return;
    *reinterpret_cast<uint4*>(out + static_cast<std::size_t>(row) * stride + column) = piece;
  };
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = i * 4 + lane / 8;
    put(main + row * 128 + (lane % 8 ^ row % 8) * 16, row, lane % 8 * 8);
  }
  if (kDim > 64 && lane < 16) put(tail + lane * 16, lane, 64);
}

// Keys that a row does not see count for nothing.
__device__ __forceinline__ void mask(float (&scores)[kKeys / 8][4], int begin,
                                     const int (&seen)[2]) {
  const int first = begin + threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + n * 8 + i % 2 >= seen[i / 2]) scores[n][i] = -1e30f;
    }
  }
}

// Flash attention: a warpgroup holds 64 rows, keys come in tiles of 96 through shared memory. While
// a warpgroup weighs scores, the tensor cores work for the others of the multiprocessor.
template <int kDim, bool kPaged>
__global__ void __launch_bounds__(kThreads, 2) attend(const __grid_constant__ Call call) {
  using At = Layout<kDim>;
  extern __shared__ char scratch[];
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(scratch));
  const Memory<kDim> memory{(address + At::kAlignment - 1) / At::kAlignment * At::kAlignment};
  const bool leads = threadIdx.x == 0;
  const bool copies = threadIdx.x % 32 == 0 && threadIdx.x / 32 < kCopiers<kPaged>;
  if (leads) make_barriers(memory);
  __syncthreads();
  kernels::wait_for_earlier_kernels();
  const Tile tile = find_tile<kPaged>(call.args);
  const int num_tiles = (tile.seen(kRows - 1) + kKeys - 1) / kKeys;
  if (leads) copy_queries<kDim, kPaged>(call, tile, memory);
  if (copies) {
    for (int i = 0; i < min(kAhead, num_tiles); ++i) copy_keys<kDim, kPaged>(call, tile, i, memory);
  }
  __syncwarp();

  const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
  const int warp_row = group * 64 + threadIdx.x / 32 % 4 * 16;
  const int upper = warp_row + threadIdx.x % 32 / 4;
  const int seen[2] = {tile.seen(upper), tile.seen(upper + 8)};
  const int seen_by_all = __reduce_min_sync(~0u, min(seen[0], seen[1]));
  const std::uint64_t queries =
      operand(memory.queries + group * 64 * 128, 16, 8 * 128, Swizzle::k128Bytes);
  const std::uint64_t query_tail =
      operand(memory.queries + At::kQueryTailAt + group * 64 * 32, 16, 8 * 32, Swizzle::k32Bytes);
  const unsigned stages = memory.stage(0);
  const std::uint64_t keys = operand(stages, 16, 8 * 128, Swizzle::k128Bytes);
  const std::uint64_t key_tail = operand(stages + At::kKeyTailAt, 16, 8 * 32, Swizzle::k32Bytes);
  const std::uint64_t values = operand(stages + At::kValuesAt, 16, 8 * 128, Swizzle::k128Bytes);
  const std::uint64_t value_tail =
      operand(stages + At::kValueTailAt, 16, 8 * 32, Swizzle::k32Bytes);
  if (group * 64 >= tile.num_rows) {  // nothing to do but to let the stages go
    for (int index = 0; index < num_tiles; ++index) {
      wait_for(memory.keys_here(index), memory.parity(index));
      if (threadIdx.x % 128 == 0) arrive(memory.is_free(index));
    }
    return;
  }
  Softmax<kDim> softmax;
  float sums[kDim / 8][4];
  wait_for(memory.queries_here(), 0);
  for (int index = 0; index < num_tiles; ++index) {
    const unsigned stage = index % kStages * At::kStageBytes / 16;
    float scores[kKeys / 8][4];
    wait_for(memory.keys_here(index), memory.parity(index));
    fence_products();
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      multiply_64x96(scores, queries + c * 2, keys + stage + c * 2, c > 0);
    }
    if constexpr (At::kHasTail) multiply_64x96(scores, query_tail, key_tail + stage, true);
    commit_products();
    if (copies && index + kAhead < num_tiles) {
      copy_keys<kDim, kPaged>(call, tile, index + kAhead, memory);
    }
    __syncwarp();
    wait_for_products<0>();
    const int begin = index * kKeys;
    if (begin + kKeys > seen_by_all) mask(scores, begin, seen);
    softmax.take_largest(scores, sums, index == 0);

    unsigned weights[kChunks][4];
    softmax.weigh(scores, 0, weights[0]);
    wait_for(memory.values_here(index), memory.parity(index));
    if (kPaged && begin + kKeys > tile.num_keys()) {
      clear_values(memory.stage(index) + At::kValuesAt, tile.num_keys() - begin);
    }
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const bool adds = index > 0 || c > 0;
      fence_products();
      multiply_64x64(sums, weights[c], values + stage + c * 16 * 128 / 16, adds);
      if constexpr (At::kHasTail) {
        multiply_64x8(sums + 8, weights[c], value_tail + stage + c * 16 * 32 / 16, adds);
      }
      commit_products();
      if (c + 1 < kChunks) softmax.weigh(scores, c + 1, weights[c + 1]);
    }
    wait_for_products<0>();
    if (threadIdx.x % 128 == 0) arrive(memory.is_free(index));
  }
  auto* out = static_cast<__nv_bfloat16*>(call.args.out) +
              ((tile.first_row + tile.row + warp_row) * call.args.num_heads + blockIdx.y) * kDim;
  softmax.finish();
  put_rows<kDim>(sums, softmax.totals, memory.queries + warp_row * 128,
                 memory.queries + At::kQueryTailAt + warp_row * 32, out, call.args.num_heads * kDim,
                 tile.num_rows - warp_row);
}

// A tensor of bf16 in four dimensions, the innermost without gaps, and the box that is copied.
struct Box {
  cuuint64_t extents[4];
  cuuint64_t strides[3];  // bytes, of the outer three
  cuuint32_t rows[4];     // of the box
};

// Of the promotions of reads to whole lines in L2, none and that to 256 bytes are slower.
CUresult encode(void* encode, const void* data, const Box& box, bool is_tail, CUtensorMap& map) {
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  const auto function = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encode);
  return function(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(data), box.extents,
                  box.strides, box.rows, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                  is_tail ? CU_TENSOR_MAP_SWIZZLE_32B : CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

// As copies need tensors to be.
bool is_aligned(const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; }

template <int kDim, bool kPaged>
cudaError_t run(const Call& call, dim3 grid, KernelStream stream) {
  return launch_behind(attend<kDim, kPaged>, grid, kThreads, stream, call,
                       Layout<kDim>::kSharedBytes);
}

}  // namespace

std::unique_ptr<const HopperAttention> HopperAttention::create() {
  void* encode = tensor_map_encoder(reinterpret_cast<const void*>(attend<72, false>));
  if (encode == nullptr) return nullptr;
  return std::unique_ptr<const HopperAttention>(new HopperAttention(encode));
}

bool HopperAttention::takes_crops(const TensorAttention& args) {
  return (args.head_dim == 64 || args.head_dim == 72) && is_aligned(args.qkv) &&
         is_aligned(args.out);
}

bool HopperAttention::takes_pages(const TensorAttention& args) {
  return args.head_dim == 64 && args.page_size % kPageRows == 0 && is_aligned(args.qkv) &&
         is_aligned(args.out) && is_aligned(args.k_pages) && is_aligned(args.v_pages);
}

cudaError_t HopperAttention::self_attention(const TensorAttention& args,
                                            KernelStream stream) const {
  const auto dim = static_cast<cuuint64_t>(args.head_dim), heads = cuuint64_t(args.num_heads);
  const auto tokens = static_cast<cuuint64_t>(args.tokens);
  const cuuint64_t row_bytes = 3 * heads * dim * 2;
  Call call{};
  call.args = args;
  const auto* qkv = static_cast<const __nv_bfloat16*>(args.qkv);
  CUtensorMap* maps[3][2] = {{&call.query, &call.query_tail},
                             {&call.keys, &call.keys_tail},
                             {&call.values, &call.values_tail}};
  for (int part = 0; part < 3; ++part) {
    for (const bool is_tail : {false, true}) {
      if (is_tail && args.head_dim <= 64) continue;
      const Box box{
          {dim, heads, tokens, static_cast<cuuint64_t>(args.num_crops)},
          {dim * 2, row_bytes, row_bytes * tokens},
          {is_tail ? 16u : 64u, 1, static_cast<cuuint32_t>(part == 0 ? kRows : kKeys), 1}};
      if (encode(encode_, qkv + part * heads * dim, box, is_tail, *maps[part][is_tail]) !=
          CUDA_SUCCESS) {
        return cudaErrorInvalidValue;
      }
    }
  }
  const dim3 grid((args.tokens + kRows - 1) / kRows, args.num_heads, args.num_crops);
  return args.head_dim == 64 ? run<64, false>(call, grid, stream)
                             : run<72, false>(call, grid, stream);
}

cudaError_t HopperAttention::prompt_attention(const TensorAttention& args,
                                              KernelStream stream) const {
  const auto dim = static_cast<cuuint64_t>(args.head_dim), heads = cuuint64_t(args.num_heads);
  const auto kv_heads = static_cast<cuuint64_t>(args.num_kv_heads);
  const auto page_rows = static_cast<cuuint64_t>(args.page_size);
  const auto rows = static_cast<cuuint64_t>(args.num_rows);
  const cuuint64_t row_bytes = (heads + 2 * kv_heads) * dim * 2, page_bytes = page_rows * dim * 2;
  const Box queries{
      {dim, heads, rows, 1}, {dim * 2, row_bytes, row_bytes * rows}, {64, 1, kRows, 1}};
  const Box pages{{dim, page_rows, kv_heads, static_cast<cuuint64_t>(args.num_pages)},
                  {dim * 2, page_bytes, page_bytes * kv_heads},
                  {64, kPageRows, 1, 1}};
  Call call{};
  call.args = args;
  if (encode(encode_, args.qkv, queries, false, call.query) != CUDA_SUCCESS ||
      encode(encode_, args.k_pages, pages, false, call.keys) != CUDA_SUCCESS ||
      encode(encode_, args.v_pages, pages, false, call.values) != CUDA_SUCCESS) {
    return cudaErrorInvalidValue;
  }
  return run<64, true>(call, dim3(args.num_tiles, args.num_heads), stream);
}

}  // namespace fovea::cuda
