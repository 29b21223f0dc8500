#pragma once

// Low-rank updates for rows of different adapters: hidden = a[matrix] x, y += b[matrix]^T hidden.
// An update belongs to a (row, choice) pair; without experts there is one choice for each row. A
// pair's sums depend on nothing but the pair.

#include "common.h"

namespace fovea {
namespace kernels {

struct LoraParams {
  u32 width;  // inputs (shrink) or outputs (expand)
  u32 max_rank;
  u32 choices;      // pairs of each row
  u32 num_experts;  // 1 for a dense linear
  u32 hidden_stride;
  u32 by_place;     // the rows of x (shrink) or y (expand) are places, not rows
  u32 rank_blocks;  // that share the ranks of a pair (shrink)
  u32 pad0_;
};

// The matrix pair of update `pair`, and its rank; 0 = nothing to do.
struct LoraUpdate {
  u32 matrix;
  u32 rank;
};
GPU_FN LoraUpdate lora_update(const GPU_CONST LoraParams& p, u32 pair,
                              const GPU_GLOBAL i32* row_slots, const GPU_GLOBAL i32* ranks,
                              const GPU_GLOBAL i32* experts) {
  LoraUpdate update;
  update.matrix = 0;
  update.rank = 0;
  const i32 slot = row_slots[pair / p.choices];
  if (slot < 0) return update;
  update.rank = static_cast<u32>(ranks[slot]);
  update.matrix = static_cast<u32>(slot);
  if (p.num_experts > 1) {
    update.matrix = update.matrix * p.num_experts + static_cast<u32>(experts[pair]);
  }
  return update;
}

// The dot product of two lines, by one warp: several elements of each are under way at once.
template <class X, class A>
GPU_FN float warp_dot(Thread t, const GPU_GLOBAL X* x, const GPU_GLOBAL A* a, u32 width) {
  constexpr u32 kAtOnce = 8;
  float sum = 0;
  for (u32 base = t.lane; base < width; base += kAtOnce * kWarpSize) {
    float of_x[kAtOnce], of_a[kAtOnce];
    GPU_UNROLL
    for (u32 j = 0; j < kAtOnce; ++j) {
      const u32 i = base + j * kWarpSize;
      of_x[j] = i < width ? to_f32(x[i]) : 0.0f;
      of_a[j] = i < width ? to_f32(a[i]) : 0.0f;
    }
    GPU_UNROLL
    for (u32 j = 0; j < kAtOnce; ++j) sum = gpu_fma(of_x[j], of_a[j], sum);
  }
  return warp_sum(t, sum);
}

// hidden[pair][r] = a[matrix][r] . x[row]. Grid: x = pair, y: blocks whose warps take
// turns at the ranks.
template <class X, class A>
GPU_FN void lora_shrink(Thread t, const GPU_CONST LoraParams& p, const GPU_GLOBAL X* x,
                        const GPU_GLOBAL A* a, const GPU_GLOBAL i32* row_slots,
                        const GPU_GLOBAL i32* ranks, const GPU_GLOBAL i32* experts,
                        const GPU_GLOBAL i32* places, GPU_GLOBAL float* hidden, GPU_SHARED char*) {
  const u32 pair = t.block.x;
  const LoraUpdate update = lora_update(p, pair, row_slots, ranks, experts);
  const u32 row = p.by_place != 0 ? static_cast<u32>(places[pair]) : pair / p.choices;
  const GPU_GLOBAL X* in = x + static_cast<u64>(row) * p.width;
  const GPU_GLOBAL A* lines = a + static_cast<u64>(update.matrix) * p.max_rank * p.width;
  const u32 step = p.rank_blocks * t.num_warps;
  for (u32 r = t.block.y * t.num_warps + t.warp; r < update.rank; r += step) {
    const float sum = warp_dot(t, in, lines + static_cast<u64>(r) * p.width, p.width);
    if (t.lane == 0) hidden[static_cast<u64>(pair) * p.hidden_stride + r] = sum;
  }
}

// y[row][o] += sum over r of b[matrix][r][o] * hidden[pair][r]. Grid: x = pair, y = columns.
template <class Y, class B>
GPU_FN void lora_expand(Thread t, const GPU_CONST LoraParams& p, const GPU_GLOBAL float* hidden,
                        const GPU_GLOBAL B* b, const GPU_GLOBAL i32* row_slots,
                        const GPU_GLOBAL i32* ranks, const GPU_GLOBAL i32* experts,
                        const GPU_GLOBAL i32* places, GPU_GLOBAL Y* y, GPU_SHARED char*) {
  const u32 pair = t.block.x;
  const u32 col = t.block.y * t.num_warps * kWarpSize + t.index;
  const LoraUpdate update = lora_update(p, pair, row_slots, ranks, experts);
  if (update.rank == 0 || col >= p.width) return;
  const u32 row = p.by_place != 0 ? static_cast<u32>(places[pair]) : pair / p.choices;
  const GPU_GLOBAL B* column = b + static_cast<u64>(update.matrix) * p.max_rank * p.width + col;
  float sum = 0;
  for (u32 r = 0; r < update.rank; ++r) {
    sum += to_f32(column[static_cast<u64>(r) * p.width]) *
           hidden[static_cast<u64>(pair) * p.hidden_stride + r];
  }
  const u64 at = static_cast<u64>(row) * p.width + col;
  y[at] = from_f32<Y>(to_f32(y[at]) + sum);
}

}  // namespace kernels
}  // namespace fovea
