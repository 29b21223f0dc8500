#include <cuda_bf16.h>

#include "backend/cuda/native_kernels.h"

namespace fovea::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    round_all(const float* from, __nv_bfloat16* to, int count) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i < count) to[i] = __float2bfloat16_rn(from[i]);
}

}  // namespace

cudaError_t round_to_bf16(const float* from, void* to, int count, KernelStream stream) {
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  round_all<<<blocks, kThreads, 0, stream.handle>>>(from, static_cast<__nv_bfloat16*>(to), count);
  return cudaGetLastError();
}

}  // namespace fovea::cuda
