#pragma once

// Blocks of a cluster, which reach one another's shared memory; from compute capability 9.0.
// Before, a block is alone. For .cu files.

#include "kernels/common.h"

namespace fovea::cuda {

/// Which of its cluster's blocks this one is.
__device__ __forceinline__ unsigned cluster_rank() {
  unsigned rank = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
  return rank;
}

/// All threads of the cluster meet, and see what was stored to shared memory before.
__device__ __forceinline__ void cluster_sync() {
  kernels::Thread thread{};
  thread.warp = threadIdx.x / 32;
  kernels::cluster_sync(thread);
}
/// The two halves of a barrier that shows nothing: who has waited knows that all have arrived.
__device__ __forceinline__ void cluster_arrive() { kernels::cluster_arrive({}); }
__device__ __forceinline__ void cluster_wait() { kernels::cluster_wait({}); }

/// Stores where another block has what this one has at `place`, of its shared memory. That block
/// has to have begun, and sees it behind a cluster_sync().
__device__ __forceinline__ void store_to_block(float* place, float value, unsigned rank) {
  kernels::store_to_peer({}, reinterpret_cast<unsigned*>(place), __float_as_uint(value), rank);
}
__device__ __forceinline__ void store_to_block(float2* place, float2 value, unsigned rank) {
  const auto low = static_cast<unsigned long long>(__float_as_uint(value.x));
  const auto high = static_cast<unsigned long long>(__float_as_uint(value.y));
  kernels::store_to_peer({}, reinterpret_cast<unsigned long long*>(place), high << 32 | low, rank);
}

}  // namespace fovea::cuda
