#include "backend/cuda/native_kernels.h"
#include "backend/cuda/tensor_core.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

constexpr int kMostThreads = 256;
constexpr int kElements = 8;  // of a load

// The same in every thread, in an order that depends on the number of threads alone.
__device__ __forceinline__ float block_sum(float value, float* scratch) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(~0u, value, mask);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  float total = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) total += scratch[w];
  return total;
}

// One block for each row, which stays in registers. Differences to the row's first element are
// summed, so that a row far from zero keeps its digits.
template <int kLoads>
__global__ void __launch_bounds__(kMostThreads) norm(RowNorm p) {
  __shared__ float sums[kMostThreads / 32], squares[kMostThreads / 32];
  // The next kernel's weights can be under way before this one has anything to do. It may read no
  // more than those early, and does not: nobody says what norms write (CudaStream::newest_writes).
  kernels::let_later_kernels_start();
  kernels::wait_for_earlier_kernels();
  const std::size_t at = static_cast<std::size_t>(blockIdx.x) * p.width;
  const auto* in = static_cast<const __nv_bfloat16*>(p.x) + at;
  auto* out = static_cast<__nv_bfloat16*>(p.y) + at;
  const float first = __bfloat162float(in[0]);
  float values[kLoads][kElements];
  float sum = 0;
#pragma unroll
  for (int j = 0; j < kLoads; ++j) {
    const int i = static_cast<int>(threadIdx.x + j * blockDim.x) * kElements;
    if (i >= p.width) continue;
    widen_8(*reinterpret_cast<const uint4*>(in + i), values[j]);
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      values[j][e] -= first;
      sum += values[j][e];
    }
  }
  const float inverse_width = 1.0f / static_cast<float>(p.width);
  const float mean = block_sum(sum, sums) * inverse_width;
  float square = 0;
#pragma unroll
  for (int j = 0; j < kLoads; ++j) {
    const int i = static_cast<int>(threadIdx.x + j * blockDim.x) * kElements;
    if (i >= p.width) continue;
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      values[j][e] -= mean;
      square += values[j][e] * values[j][e];
    }
  }
  const float scale = 1.0f / sqrtf(block_sum(square, squares) * inverse_width + p.eps);
#pragma unroll
  for (int j = 0; j < kLoads; ++j) {
    const int i = static_cast<int>(threadIdx.x + j * blockDim.x) * kElements;
    if (i >= p.width) continue;
    unsigned words[4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float4 weight = *reinterpret_cast<const float4*>(p.weight + i + half * 4);
      const float4 bias = *reinterpret_cast<const float4*>(p.bias + i + half * 4);
      const float* v = values[j] + half * 4;
      words[half * 2] = pair_of(v[0] * scale * weight.x + bias.x, v[1] * scale * weight.y + bias.y);
      words[half * 2 + 1] =
          pair_of(v[2] * scale * weight.z + bias.z, v[3] * scale * weight.w + bias.w);
    }
    *reinterpret_cast<uint4*>(out + i) = {words[0], words[1], words[2], words[3]};
  }
}

}  // namespace

cudaError_t row_norm(const RowNorm& args, KernelStream stream) {
  const int loads = args.width / kElements;
  const auto threads = static_cast<unsigned>(min((loads + 31) / 32 * 32, kMostThreads));
  const dim3 grid(static_cast<unsigned>(args.rows));
  if (loads <= kMostThreads) return launch_behind(norm<1>, grid, threads, stream, args);
  if (loads <= 2 * kMostThreads) return launch_behind(norm<2>, grid, threads, stream, args);
  return launch_behind(norm<4>, grid, threads, stream, args);
}

}  // namespace fovea::cuda
