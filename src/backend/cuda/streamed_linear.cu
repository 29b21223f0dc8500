#include <cuda_bf16.h>

#include "backend/cuda/native_kernels.h"
#include "kernels/common.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kWeightRows = 16;  // of a block: one side of a tensor-core product
constexpr int kDepth = 32;       // that a warp takes at a time: 16 bytes of each row and lane
constexpr int kAhead = 8;        // such pieces of the weight that are under way

// D += A . B, 16x16 by 16x8, bf16 with f32 sums.
__device__ __forceinline__ void multiply_16x8(float (&d)[4], const unsigned (&a)[4],
                                              const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ uint4 load_once(const __nv_bfloat16* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

// One block takes 16 rows of the weight, its warps take turns at the depth. Within 32 of the depth
// a lane holds 8 neighbours of a row: products do not mind in which order the depth is walked, as
// long as weight and x agree. Every piece of the weight that is used up makes room for another.
// Weights are constants and could be asked for before the kernel in front has finished; the
// assembler of CUDA 13.0 puts the wait before these loads all the same.
template <int kGroups>  // of 8 rows of x
__global__ void __launch_bounds__(kWarps * 32, 2) streamed(StreamedLinear p) {
  constexpr int kStride = kWarps * kDepth;  // from one piece of a warp to its next
  constexpr int kTogether = 4 / kGroups;    // pieces whose x is loaded at a time
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = lane / 4, quarter = lane % 4;
  const int n0 = blockIdx.x * kWeightRows;
  const int first_at = warp * kDepth;
  const std::size_t k = static_cast<std::size_t>(p.k);
  const auto* weight = static_cast<const __nv_bfloat16*>(p.weight) + quarter * 8;
  const __nv_bfloat16* upper = weight + min(n0 + row, p.n - 1) * k;
  const __nv_bfloat16* lower = weight + min(n0 + row + 8, p.n - 1) * k;
  const auto* x = static_cast<const __nv_bfloat16*>(p.x) + quarter * 8;
  uint4 above[kAhead], below[kAhead];
#pragma unroll
  for (int s = 0; s < kAhead; ++s) {
    const int at = first_at + s * kStride;
    if (at < p.k) {
      above[s] = load_once(upper + at);
      below[s] = load_once(lower + at);
    }
  }
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  float sums[kGroups][4] = {};
  for (int base = first_at; base < p.k; base += kAhead * kStride) {
#pragma unroll
    for (int begin = 0; begin < kAhead; begin += kTogether) {
      uint4 b[kTogether][kGroups];
#pragma unroll
      for (int s = 0; s < kTogether; ++s) {
        const int at = base + (begin + s) * kStride;
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          b[s][g] = {0, 0, 0, 0};
          if (at < p.k && g * 8 + row < p.m) {
            b[s][g] = *reinterpret_cast<const uint4*>(x + (g * 8 + row) * k + at);
          }
        }
      }
#pragma unroll
      for (int s = 0; s < kTogether; ++s) {
        const int slot = begin + s, at = base + slot * kStride;
        if (at >= p.k) continue;
        const uint4 w = above[slot], v = below[slot];
        const unsigned first[4] = {w.x, v.x, w.y, v.y};
        const unsigned second[4] = {w.z, v.z, w.w, v.w};
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          const unsigned low[2] = {b[s][g].x, b[s][g].y}, high[2] = {b[s][g].z, b[s][g].w};
          multiply_16x8(sums[g], first, low);
          multiply_16x8(sums[g], second, high);
        }
        if (at + kAhead * kStride < p.k) {
          above[slot] = load_once(upper + at + kAhead * kStride);
          below[slot] = load_once(lower + at + kAhead * kStride);
        }
      }
    }
  }
  __shared__ float parts[kWarps][kWeightRows][kGroups * 8 + 1];
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    parts[warp][row][g * 8 + quarter * 2] = sums[g][0];
    parts[warp][row][g * 8 + quarter * 2 + 1] = sums[g][1];
    parts[warp][row + 8][g * 8 + quarter * 2] = sums[g][2];
    parts[warp][row + 8][g * 8 + quarter * 2 + 1] = sums[g][3];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kWeightRows * p.m; i += kWarps * 32) {
    const int n = n0 + i % kWeightRows, t = i / kWeightRows;
    if (n >= p.n) continue;
    float value = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) value += parts[w][i % kWeightRows][t];
    if (p.scale != nullptr) value *= p.scale[n];
    if (p.bias != nullptr) value += p.bias[n];
    value = kernels::activated(value, p.activation);
    const std::size_t at = static_cast<std::size_t>(t) * p.n + n;
    if (p.add != nullptr) {
      const std::size_t add_at = static_cast<std::size_t>(t % p.add_rows) * p.n + n;
      value += p.add_is_f32 ? static_cast<const float*>(p.add)[add_at]
                            : __bfloat162float(static_cast<const __nv_bfloat16*>(p.add)[add_at]);
    }
    if (p.y_is_f32) {
      static_cast<float*>(p.y)[at] = value;
    } else {
      static_cast<__nv_bfloat16*>(p.y)[at] = __float2bfloat16_rn(value);
    }
  }
}

__global__ void __launch_bounds__(256) round_all(const float* from, __nv_bfloat16* to, int count) {
  const int i = static_cast<int>(blockIdx.x * 256 + threadIdx.x);
  if (i < count) to[i] = __float2bfloat16_rn(from[i]);
}

}  // namespace

cudaError_t round_to_bf16(const float* from, void* to, int count, KernelStream stream) {
  round_all<<<static_cast<unsigned>((count + 255) / 256), 256, 0, stream.handle>>>(
      from, static_cast<__nv_bfloat16*>(to), count);
  return cudaGetLastError();
}

cudaError_t streamed_linear(const StreamedLinear& args, KernelStream stream) {
  const dim3 grid(static_cast<unsigned>((args.n + kWeightRows - 1) / kWeightRows));
  return args.m <= 8 ? launch_behind(streamed<1>, grid, kWarps * 32, stream, args)
                     : launch_behind(streamed<2>, grid, kWarps * 32, stream, args);
}

}  // namespace fovea::cuda
