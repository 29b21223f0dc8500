#pragma once

// Mixture of experts: routing, sorting (row, choice) pairs by expert, the gate, the weighted sum.

#include "common.h"

namespace fovea {
namespace kernels {

struct MoeParams {
  u32 num_rows;
  u32 choices;
  u32 num_experts;
  u32 width;  // inner (gate) or model width (combine)
};

// The `choices` largest of each row and their softmax; the lowest index first among equals, NaN
// after everything else. One block of one warp for each row, for up to 32 choices.
GPU_FN void moe_route(Thread t, const GPU_CONST MoeParams& p, const GPU_GLOBAL float* logits,
                      GPU_GLOBAL i32* experts, GPU_GLOBAL float* weights, GPU_SHARED char*) {
  const GPU_GLOBAL float* row = logits + static_cast<u64>(t.block.x) * p.num_experts;
  const u64 out = static_cast<u64>(t.block.x) * p.choices;
  u64 taken = ~static_cast<u64>(0);
  float first = 0;
  float total = 0;
  float own_weight = 0;  // of the choice that this lane writes
  for (u32 i = 0; i < p.choices; ++i) {
    u64 best = 0;
    for (u32 e = t.lane; e < p.num_experts; e += kWarpSize) {
      const u64 rank = ranked(row[e], e);
      if (rank < taken && rank > best) best = rank;
    }
    taken = warp_max(t, best);
    const float logit = row[place_of(taken)];
    if (i == 0) first = logit;
    const float weight = gpu_exp(logit - first);
    total += weight;
    if (t.lane == i) own_weight = weight;
    if (t.lane == 0) experts[out + i] = static_cast<i32>(place_of(taken));
  }
  if (t.lane < p.choices) weights[out + t.lane] = own_weight / total;
}

// The experts of this thread's next pairs, one every num_threads from i on, asked for together: one
// after the other would be a wait for memory each. num_experts where there is none.
constexpr GPU_CONST u32 kSortedAtOnce = 8;
struct SortedPairs {
  u32 expert[kSortedAtOnce];
};
GPU_FN SortedPairs load_pairs(const GPU_CONST MoeParams& p, const GPU_GLOBAL i32* experts, u32 i,
                              u32 num_threads) {
  SortedPairs loaded;
  GPU_UNROLL
  for (u32 j = 0; j < kSortedAtOnce; ++j) {
    const u32 at = i + j * num_threads;
    loaded.expert[j] = at < p.num_rows * p.choices ? static_cast<u32>(experts[at]) : p.num_experts;
  }
  return loaded;
}

// A counting sort of the pairs by expert, in one block: offsets [experts + 1] first place of each,
// places [pairs] where a pair went, rows [pairs] the row of each place. scratch: experts + 1 words
// for counts and as many for places handed out. The order within an expert is any: nothing depends
// on it.
GPU_FN void moe_sort(Thread t, const GPU_CONST MoeParams& p, const GPU_GLOBAL i32* experts,
                     GPU_GLOBAL i32* offsets, GPU_GLOBAL i32* places, GPU_GLOBAL i32* rows,
                     GPU_SHARED char* scratch) {
  GPU_SHARED u32* counts = reinterpret_cast<GPU_SHARED u32*>(scratch);
  GPU_SHARED u32* next = counts + p.num_experts + 1;
  const u32 num_threads = t.num_warps * kWarpSize;
  const u32 pairs = p.num_rows * p.choices;
  for (u32 e = t.index; e <= p.num_experts; e += num_threads) counts[e] = 0;
  block_sync(t);
  for (u32 i = t.index; i < pairs; i += num_threads * kSortedAtOnce) {
    const SortedPairs loaded = load_pairs(p, experts, i, num_threads);
    GPU_UNROLL
    for (u32 j = 0; j < kSortedAtOnce; ++j) {
      if (loaded.expert[j] < p.num_experts) atomic_add_u32(counts + loaded.expert[j], 1);
    }
  }
  block_sync(t);
  if (t.index == 0) {
    u32 begin = 0;
    for (u32 e = 0; e < p.num_experts; ++e) {
      next[e] = begin;
      begin += counts[e];
    }
    next[p.num_experts] = begin;
  }
  block_sync(t);
  for (u32 e = t.index; e <= p.num_experts; e += num_threads) {
    offsets[e] = static_cast<i32>(next[e]);
  }
  block_sync(t);
  for (u32 i = t.index; i < pairs; i += num_threads * kSortedAtOnce) {
    const SortedPairs loaded = load_pairs(p, experts, i, num_threads);
    GPU_UNROLL
    for (u32 j = 0; j < kSortedAtOnce; ++j) {
      if (loaded.expert[j] >= p.num_experts) continue;
      const u32 at = i + j * num_threads;
      const u32 place = atomic_add_u32(next + loaded.expert[j], 1);
      places[at] = static_cast<i32>(place);
      rows[place] = static_cast<i32>(at / p.choices);
    }
  }
}

// gated[place] = gelu_erf(h) * (g + 1), [h | g] = hidden[place]. Grid: x = place.
GPU_FN void moe_gate(Thread t, const GPU_CONST MoeParams& p, const GPU_GLOBAL float* hidden,
                     GPU_GLOBAL float* gated, GPU_SHARED char*) {
  const GPU_GLOBAL float* h = hidden + static_cast<u64>(t.block.x) * 2 * p.width;
  GPU_GLOBAL float* out = gated + static_cast<u64>(t.block.x) * p.width;
  for (u32 i = t.index; i < p.width; i += t.num_warps * kWarpSize) {
    out[i] = gelu_erf(h[i]) * (h[p.width + i] + 1.0f);
  }
}

// y[t] += sum over the choices of weight * results[place]. Grid: x = row.
template <class T>
GPU_FN void moe_combine(Thread t, const GPU_CONST MoeParams& p, const GPU_GLOBAL float* results,
                        const GPU_GLOBAL i32* places, const GPU_GLOBAL float* weights,
                        GPU_GLOBAL T* y, GPU_SHARED char*) {
  const u64 first = static_cast<u64>(t.block.x) * p.choices;
  GPU_GLOBAL T* out = y + static_cast<u64>(t.block.x) * p.width;
  for (u32 i = t.index; i < p.width; i += t.num_warps * kWarpSize) {
    float sum = to_f32(out[i]);
    for (u32 c = 0; c < p.choices; ++c) {
      const u64 place = static_cast<u64>(static_cast<u32>(places[first + c]));
      sum += weights[first + c] * results[place * p.width + i];
    }
    out[i] = from_f32<T>(sum);
  }
}

}  // namespace kernels
}  // namespace fovea
