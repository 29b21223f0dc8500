#pragma once

// Kernels that take a row at a time: embedding, moving rows, LayerNorm, activations, tau.

#include "common.h"

namespace fovea {
namespace kernels {

struct RowsParams {
  u32 width;
  u32 num_rows;  // of the table that indices point into
  u32 pad0_, pad1_;
};

// y[t] = table[ids[t]]; ids outside the table leave their row. One block for each id.
template <class Table, class T>
GPU_FN void embed(Thread t, const GPU_CONST RowsParams& p, const GPU_GLOBAL Table* table,
                  const GPU_GLOBAL i32* ids, GPU_GLOBAL T* y, GPU_SHARED char*) {
  const i32 id = ids[t.block.x];
  if (id < 0 || static_cast<u32>(id) >= p.num_rows) return;
  const GPU_GLOBAL Table* from = table + static_cast<u64>(id) * p.width;
  GPU_GLOBAL T* to = y + static_cast<u64>(t.block.x) * p.width;
  for (u32 i = t.index; i < p.width; i += t.num_warps * kWarpSize) {
    to[i] = from_f32<T>(to_f32(from[i]));
  }
}

// y[rows[m]] = x[m]. One block for each row.
template <class T>
GPU_FN void scatter_rows(Thread t, const GPU_CONST RowsParams& p, const GPU_GLOBAL T* x,
                         const GPU_GLOBAL i32* rows, GPU_GLOBAL T* y, GPU_SHARED char*) {
  const i32 row = rows[t.block.x];
  if (row < 0 || static_cast<u32>(row) >= p.num_rows) return;
  const GPU_GLOBAL T* from = x + static_cast<u64>(t.block.x) * p.width;
  GPU_GLOBAL T* to = y + static_cast<u64>(row) * p.width;
  for (u32 i = t.index; i < p.width; i += t.num_warps * kWarpSize) to[i] = from[i];
}

// y[m] = x[rows[m]]. One block for each row.
template <class T>
GPU_FN void gather_rows(Thread t, const GPU_CONST RowsParams& p, const GPU_GLOBAL T* x,
                        const GPU_GLOBAL i32* rows, GPU_GLOBAL T* y, GPU_SHARED char*) {
  const i32 row = rows[t.block.x];
  if (row < 0 || static_cast<u32>(row) >= p.num_rows) return;
  const GPU_GLOBAL T* from = x + static_cast<u64>(row) * p.width;
  GPU_GLOBAL T* to = y + static_cast<u64>(t.block.x) * p.width;
  for (u32 i = t.index; i < p.width; i += t.num_warps * kWarpSize) to[i] = from[i];
}

struct LayerNormParams {
  u32 width;
  float eps;
  u32 pad0_, pad1_;
};

// y = (x - mean) / sqrt(var + eps) * weight + bias for each row; y may be x. One block for each
// row; scratch: num_warps floats. Differences to the row's first element are summed, so that a row
// far from zero keeps its digits.
template <class T>
GPU_FN void layer_norm(Thread t, const GPU_CONST LayerNormParams& p, const GPU_GLOBAL T* x,
                       const GPU_GLOBAL float* weight, const GPU_GLOBAL float* bias,
                       GPU_GLOBAL T* y, GPU_SHARED char* scratch) {
  GPU_SHARED float* sums = reinterpret_cast<GPU_SHARED float*>(scratch);
  const u32 num_threads = t.num_warps * kWarpSize;
  const GPU_GLOBAL T* in = x + static_cast<u64>(t.block.x) * p.width;
  GPU_GLOBAL T* out = y + static_cast<u64>(t.block.x) * p.width;
  const float first = to_f32(in[0]);
  float sum = 0;
  for (u32 i = t.index; i < p.width; i += num_threads) sum += to_f32(in[i]) - first;
  const float inverse_width = 1.0f / static_cast<float>(p.width);
  const float mean = block_sum(t, sum, sums) * inverse_width;
  float squares = 0;
  for (u32 i = t.index; i < p.width; i += num_threads) {
    const float d = to_f32(in[i]) - first - mean;
    squares += d * d;
  }
  const float variance = block_sum(t, squares, sums) * inverse_width;
  const float scale = 1.0f / gpu_sqrt(variance + p.eps);
  for (u32 i = t.index; i < p.width; i += num_threads) {
    out[i] = from_f32<T>((to_f32(in[i]) - first - mean) * scale * weight[i] + bias[i]);
  }
}

struct ActivateParams {
  u32 count;
  u32 activation;
  u32 pad0_, pad1_;
};

// y = activation(x), elementwise; y may be x. One thread for each element.
template <class T>
GPU_FN void activate(Thread t, const GPU_CONST ActivateParams& p, const GPU_GLOBAL T* x,
                     GPU_GLOBAL T* y, GPU_SHARED char*) {
  const u32 i = t.block.x * t.num_warps * kWarpSize + t.index;
  if (i < p.count) y[i] = from_f32<T>(activated(to_f32(x[i]), p.activation));
}

struct AddRowsParams {
  u32 width;
  u32 num_rows;  // of `add`
  u32 pad0_, pad1_;
};

// y[t] += add[t mod num_rows]. One block for each row of y.
template <class T>
GPU_FN void add_rows(Thread t, const GPU_CONST AddRowsParams& p, const GPU_GLOBAL float* add,
                     GPU_GLOBAL T* y, GPU_SHARED char*) {
  const GPU_GLOBAL float* from = add + static_cast<u64>(t.block.x % p.num_rows) * p.width;
  GPU_GLOBAL T* to = y + static_cast<u64>(t.block.x) * p.width;
  for (u32 i = t.index; i < p.width; i += t.num_warps * kWarpSize) {
    to[i] = from_f32<T>(to_f32(to[i]) + from[i]);
  }
}

struct TauScaleParams {
  u32 num_heads;
  u32 head_dim;
  u32 max_positions;
  u32 pad0_;
};

// Moondream 3: q[h] *= tanh(tau[h]) + scale[position, h], v[h] alike with tau[num_heads + h].
// One block for each row of qkv.
template <class T>
GPU_FN void tau_scale(Thread t, const GPU_CONST TauScaleParams& p, const GPU_GLOBAL T* tau,
                      const GPU_GLOBAL float* position_scale, const GPU_GLOBAL i32* positions,
                      GPU_GLOBAL T* qkv, GPU_SHARED char*) {
  const u32 dim = p.num_heads * p.head_dim;
  const u32 position = static_cast<u32>(positions[t.block.x]);
  if (position >= p.max_positions) return;
  const GPU_GLOBAL float* scale = position_scale + static_cast<u64>(position) * p.num_heads;
  const GPU_GLOBAL T* row_tau = tau + static_cast<u64>(t.block.x) * 2 * p.num_heads;
  GPU_GLOBAL T* q = qkv + static_cast<u64>(t.block.x) * 3 * dim;
  GPU_GLOBAL T* v = q + 2 * dim;
  // A warp takes a head at a time, so that its factors are computed once.
  for (u32 head = t.warp; head < p.num_heads; head += t.num_warps) {
    const float q_factor = gpu_tanh(to_f32(row_tau[head])) + scale[head];
    const float v_factor = gpu_tanh(to_f32(row_tau[p.num_heads + head])) + scale[head];
    for (u32 d = t.lane; d < p.head_dim; d += kWarpSize) {
      const u32 i = head * p.head_dim + d;
      q[i] = from_f32<T>(to_f32(q[i]) * q_factor);
      v[i] = from_f32<T>(to_f32(v[i]) * v_factor);
    }
  }
}

}  // namespace kernels
}  // namespace fovea
