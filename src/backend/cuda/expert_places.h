#pragma once

// What kernels for routed experts share. For .cu files.

#include <cstddef>

#include "backend/cuda/native_kernels.h"
#include "kernels/common.h"

namespace fovea::cuda {

/// gelu_erf(h) * (g + 1)
__device__ __forceinline__ float gated(float h, float g) {
  return kernels::gelu_erf(h) * (g + 1.0f);
}

/// Output n of an up product at a place, with what adapters add to it.
__device__ __forceinline__ float with_added(const ExpertProduct& p, float value, int place, int n) {
  return p.added == nullptr ? value : value + p.added[static_cast<std::size_t>(place) * p.n + n];
}

/// The sum of `value` over this lane of a warp and those in front of it.
__device__ __forceinline__ int prefix_sum(int value) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(~0u, value, step);
    if (lane >= step) value += other;
  }
  return value;
}

/// Places begin..end of an expert; expert -1: none.
struct ExpertPlaces {
  int expert, begin, end;
};

}  // namespace fovea::cuda
