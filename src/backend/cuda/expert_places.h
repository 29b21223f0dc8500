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

/// The choices of a single row, in shared memory.
struct RowChoices {
  unsigned long long ranks[kMostNativeExperts];
  float logits[kMostNativeChoices];
  float exponentials[kMostNativeChoices];
};

/// The num_choices largest of a row's logits as places 0, 1, 2, ..., the largest first, and in
/// `counts` their softmax: bit by bit what kernels::moe_route makes of them. By all threads.
__device__ __forceinline__ void choose_experts(const float* router, int num_experts,
                                               int num_choices, ExpertPlaces* places, float* counts,
                                               RowChoices& row) {
  for (int e = threadIdx.x; e < num_experts; e += blockDim.x) {
    row.ranks[e] = kernels::ranked(__ldcg(router + e), static_cast<unsigned>(e));
  }
  __syncthreads();
  for (int e = threadIdx.x; e < num_experts; e += blockDim.x) {
    const unsigned long long rank = row.ranks[e];
    int before = 0;
    for (int other = 0; other < num_experts; ++other) before += row.ranks[other] > rank ? 1 : 0;
    if (before >= num_choices) continue;
    places[before] = {e, before, before + 1};
    row.logits[before] = __ldcg(router + e);
  }
  __syncthreads();
  const int i = threadIdx.x;
  if (i < num_choices) row.exponentials[i] = kernels::gpu_exp(row.logits[i] - row.logits[0]);
  __syncthreads();
  if (i >= num_choices) return;
  float total = 0;
  for (int c = 0; c < num_choices; ++c) total += row.exponentials[c];
  counts[i] = row.exponentials[i] / total;
}

}  // namespace fovea::cuda
