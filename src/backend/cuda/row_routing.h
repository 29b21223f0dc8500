#pragma once

// Which experts a few rows choose, found by every block that wants to know. For .cu files.

#include "backend/cuda/native_kernels.h"
#include "kernels/common.h"

namespace fovea::cuda {

/// The choices of up to kRows rows, in shared memory.
template <int kRows>
struct RowRouting {
  int num_used;
  int used[kMostRoutedExperts];              ///< experts that any row chose, in ascending order
  float weights[kRows][kMostRoutedExperts];  ///< what a row counts of one; 0: did not choose it
  unsigned chosen[kRows][kMostRoutedExperts / 32];  ///< a bit for each expert
};

/// One row's, by a warp: each lane has two of the experts.
template <int kRows>
__device__ __forceinline__ void route_row(const float* logits, int num_experts, int num_choices,
                                          int row, RowRouting<kRows>& routing) {
  constexpr int kOfLane = kMostRoutedExperts / 32;
  const int lane = threadIdx.x % 32;
  unsigned keys[kOfLane];  // in the order of the logits
  bool is_free[kOfLane];
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    const int e = i * 32 + lane;
    is_free[i] = e < num_experts;
    const float logit = is_free[i] ? __ldcg(logits + e) : 0;
    keys[i] = static_cast<unsigned>(kernels::ranked(logit, 0) >> 32);
    routing.weights[row][e] = 0;
  }
  unsigned own_key = 0;  // of the choice that has the lane's number
  int own = 0;
  unsigned chosen[kOfLane] = {};
  for (int c = 0; c < num_choices; ++c) {
    unsigned best = 0;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) best = max(best, is_free[i] ? keys[i] : 0);
    best = __reduce_max_sync(~0u, best);
    int winner = -1;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const unsigned equal = __ballot_sync(~0u, is_free[i] && keys[i] == best);
      if (winner >= 0 || equal == 0) continue;
      const int lowest = __ffs(static_cast<int>(equal)) - 1;
      winner = i * 32 + lowest;
      chosen[i] |= 1u << lowest;
      if (lane == lowest) is_free[i] = false;
    }
    if (lane != c) continue;
    own = winner;
    own_key = best;
  }
  const auto logit_of = [](unsigned key) {
    return kernels::number_of(static_cast<unsigned long long>(key) << 32);
  };
  const float first = logit_of(__shfl_sync(~0u, own_key, 0));
  const float part = kernels::gpu_exp(logit_of(own_key) - first);
  float total = 0;
  for (int c = 0; c < num_choices; ++c) total += __shfl_sync(~0u, part, c);
  __syncwarp();  // the zeros are there
  if (lane < num_choices) routing.weights[row][own] = part / total;
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    if (lane == i) routing.chosen[row][i] = chosen[i];
  }
}

/// The num_choices largest of each row's logits and their softmax: bit by bit what
/// kernels::moe_route makes of them. By all threads, which all see it when it returns.
template <int kRows>
__device__ __forceinline__ void route_rows(const float* router, int num_rows, int num_experts,
                                           int num_choices, RowRouting<kRows>& routing) {
  static_assert(kMostRoutedExperts == 64);
  const int thread = threadIdx.x;
  for (int row = thread / 32; row < num_rows; row += static_cast<int>(blockDim.x) / 32) {
    route_row(router + row * num_experts, num_experts, num_choices, row, routing);
  }
  __syncthreads();
  if (thread < kMostRoutedExperts) {
    unsigned long long used = 0;
    for (int row = 0; row < num_rows; ++row) {
      used |= routing.chosen[row][0] | static_cast<unsigned long long>(routing.chosen[row][1])
                                           << 32;
    }
    const unsigned long long own = 1ull << thread;
    if ((used & own) != 0) routing.used[__popcll(used & (own - 1))] = thread;
    if (thread == 0) routing.num_used = __popcll(used);
  }
  __syncthreads();
}

}  // namespace fovea::cuda
