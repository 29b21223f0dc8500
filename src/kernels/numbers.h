#pragma once

// Coordinates and sizes: Fourier features of a number, and the likeliest bin of a distribution.

#include "common.h"

namespace fovea {
namespace kernels {

struct FourierParams {
  u32 inputs;
  u32 features;
  u32 round_to_bf16;
  u32 pad0_;
};

GPU_FN float rounded_if(float x, u32 round) { return round != 0 ? rounded_to<bf16>(x) : x; }

// y [R, 2 features] = cos(f), sin(f), f = (2 pi value) . frequencies. One block for each row.
template <class T>
GPU_FN void fourier_features(Thread t, const GPU_CONST FourierParams& p,
                             const GPU_GLOBAL float* values, const GPU_GLOBAL float* frequencies,
                             GPU_GLOBAL T* y, GPU_SHARED char*) {
  const GPU_GLOBAL float* row = values + static_cast<u64>(t.block.x) * p.inputs;
  GPU_GLOBAL T* out = y + static_cast<u64>(t.block.x) * 2 * p.features;
  for (u32 j = t.index; j < p.features; j += t.num_warps * kWarpSize) {
    float angle = 0;
    for (u32 c = 0; c < p.inputs; ++c) {
      const float value = rounded_if(row[c], p.round_to_bf16);
      angle += rounded_if(6.28318530717958647692f * value, p.round_to_bf16) *
               frequencies[c * p.features + j];
    }
    angle = rounded_if(angle, p.round_to_bf16);
    out[j] = from_f32<T>(rounded_if(gpu_cos(angle), p.round_to_bf16));
    out[p.features + j] = from_f32<T>(rounded_if(gpu_sin(angle), p.round_to_bf16));
  }
}

struct ArgmaxParams {
  u32 bins;
  u32 window;
  u32 pad0_, pad1_;
};

// The largest bin of each row, the lowest of equals, and the softmax mass within `window` of it.
// NaN bins count nothing. One block for each row; scratch: num_warps words of 8 bytes.
GPU_FN void argmax_bins(Thread t, const GPU_CONST ArgmaxParams& p, const GPU_GLOBAL float* logits,
                        GPU_GLOBAL i32* bins, GPU_GLOBAL float* mass, GPU_SHARED char* scratch) {
  const GPU_GLOBAL float* row = logits + static_cast<u64>(t.block.x) * p.bins;
  const u32 num_threads = t.num_warps * kWarpSize;
  u64 best = 0;
  for (u32 i = t.index; i < p.bins; i += num_threads) {
    const u64 rank = ranked(row[i], i);
    if (rank > best) best = rank;
  }
  best = block_max(t, best, reinterpret_cast<GPU_SHARED u64*>(scratch));
  const u32 bin = place_of(best);
  const float largest = row[bin];
  float total = 0;
  float near = 0;
  for (u32 i = t.index; i < p.bins; i += num_threads) {
    if (is_nan(row[i])) continue;
    const float weight = gpu_exp(row[i] - largest);
    total += weight;
    if ((i > bin ? i - bin : bin - i) <= p.window) near += weight;
  }
  GPU_SHARED float* sums = reinterpret_cast<GPU_SHARED float*>(scratch);
  total = block_sum(t, total, sums);
  near = block_sum(t, near, sums);
  if (t.index == 0) {
    bins[t.block.x] = static_cast<i32>(bin);
    mass[t.block.x] = total > 0 ? gpu_min(1.0f, near / total) : 0.0f;
  }
}

}  // namespace kernels
}  // namespace fovea
