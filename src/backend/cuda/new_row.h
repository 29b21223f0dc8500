#pragma once

// What a decoded row brings to attention itself: its q, k and v of a head, scaled by tau, rotated,
// and stored. For .cu files.

#include "backend/cuda/native_kernels.h"
#include "backend/cuda/page_elements.h"
#include "backend/cuda/tensor_core.h"
#include "backend/cuda/weight_stream.h"
#include "kernels/common.h"
#include "kernels/kv_cache.h"

namespace fovea::cuda {

constexpr int kDecodeWarps = 8;  // of a block

/// The row's own q, k and v of one head: scaled, rotated, rounded; k and v as pages hold them.
template <int kDim>
struct OwnHead {
  float q[kDim], k[kDim], v[kDim];
};

__device__ __forceinline__ float rounded(float x) {
  return __bfloat162float(__float2bfloat16_rn(x));
}

/// Eight elements of a weight in 8 or 16 bits as floats.
__device__ __forceinline__ void weight_8(const void* weight, bool is_f8, std::size_t at,
                                         float (&out)[8]) {
  uint4 pairs;
  if (is_f8) {
    const uint2 codes =
        *reinterpret_cast<const uint2*>(static_cast<const unsigned char*>(weight) + at);
    unsigned low[2], high[2];
    widen_float8(codes.x, low);
    widen_float8(codes.y, high);
    pairs = {low[0], low[1], high[0], high[1]};
  } else {
    pairs = *reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(weight) + at);
  }
  widen_8(pairs, out);
}

/// What q and v of a head count: tanh(weight . input) + the position's own. Every number is rounded
/// where separate operations would store it. Called by all threads, which all get it.
__device__ __forceinline__ float2 tau_factors(const NewRows& p, int row, int head, int position,
                                              float (&scratch)[2][kDecodeWarps]) {
  const int num_heads = p.rows.num_heads;
  const int width = (num_heads + 2 * p.rows.num_kv_heads) * p.rows.head_dim;
  const std::size_t q_at = static_cast<std::size_t>(head) * width;
  const std::size_t v_at = static_cast<std::size_t>(num_heads + head) * width;
  const auto* input =
      static_cast<const __nv_bfloat16*>(p.tau_input) + static_cast<std::size_t>(row) * width;
  float sums[2] = {0, 0};
#pragma unroll 3
  for (int i = static_cast<int>(threadIdx.x) * 8; i < width; i += kDecodeWarps * 32 * 8) {
    float x[8], wq[8], wv[8];
    widen_8(*reinterpret_cast<const uint4*>(input + i), x);
    weight_8(p.tau_weight, p.tau_is_f8, q_at + i, wq);
    weight_8(p.tau_weight, p.tau_is_f8, v_at + i, wv);
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      sums[0] += x[e] * wq[e];
      sums[1] += x[e] * wv[e];
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) sums[i] += __shfl_xor_sync(~0u, sums[i], mask);
    if (threadIdx.x % 32 == 0) scratch[i][threadIdx.x / 32] = sums[i];
  }
  __syncthreads();
  float totals[2] = {0, 0};
  for (int w = 0; w < kDecodeWarps; ++w) {
    totals[0] += scratch[0][w];
    totals[1] += scratch[1][w];
  }
  if (p.tau_scale != nullptr) {
    totals[0] *= p.tau_scale[head];
    totals[1] *= p.tau_scale[num_heads + head];
  }
  const float own = p.position_scale[static_cast<std::size_t>(position) * num_heads + head];
  return {kernels::gpu_tanh(rounded(totals[0])) + own, kernels::gpu_tanh(rounded(totals[1])) + own};
}

/// Element d of a head that counts `factor`, after rotation by `table`; pairs as kernels::rotated.
__device__ __forceinline__ float rotated(const __nv_bfloat16* head, float factor,
                                         const float* table, int pairs, int d) {
  const auto scaled = [&](int i) {
    const float x = __bfloat162float(head[i]);
    return factor == 1.0f ? x : rounded(x * factor);
  };
  if (d >= 2 * pairs) return scaled(d);
  const int i = d < pairs ? d : d - pairs;
  const float a = scaled(i), b = scaled(i + pairs);
  const float cosine = table[2 * i], sine = table[2 * i + 1];
  return rounded(d < pairs ? a * cosine - b * sine : a * sine + b * cosine);
}

/// The row's own q, k and v of one head: scaled by tau, rotated, rounded. By all threads.
template <int kDim>
__device__ __forceinline__ void prepare(const NewRows& p, int sequence, int head, int kv_head,
                                        int index, const __nv_bfloat16* row, OwnHead<kDim>& own,
                                        float (&scratch)[2][kDecodeWarps]) {
  const int num_heads = p.rows.num_heads, num_kv_heads = p.rows.num_kv_heads;
  const int position = min(max(p.positions[sequence], 0), p.max_positions - 1);
  float2 factors = {1, 1};
  if (p.tau_weight != nullptr) {
    factors = tau_factors(p, index, head, min(position, p.tau_positions - 1), scratch);
  }
  const float* table = p.rope + static_cast<std::size_t>(position) * p.rotary_pairs * 2;
  const auto* q_head = row + head * kDim;
  const auto* k_head = row + (num_heads + kv_head) * kDim;
  const auto* v_head = row + (num_heads + num_kv_heads + kv_head) * kDim;
  for (int i = threadIdx.x; i < 3 * kDim; i += kDecodeWarps * 32) {
    const int d = i % kDim;
    if (i < kDim) {
      own.q[d] = rotated(q_head, factors.x, table, p.rotary_pairs, d);
    } else if (i < 2 * kDim) {
      own.k[d] = rotated(k_head, 1, table, p.rotary_pairs, d);
    } else {
      own.v[d] = rotated(v_head, factors.y, table, 0, d);
    }
  }
}

/// The row of a page that a slot is for a head.
__device__ __forceinline__ std::size_t page_row(const DecodedRows& p, int slot, int kv_head) {
  return (static_cast<std::size_t>(slot / p.page_size) * p.num_kv_heads + kv_head) * p.page_size +
         slot % p.page_size;
}

/// The row's own k and v to where the slot is.
template <int kDim>
__device__ __forceinline__ void store_own(const DecodedRows& p, int slot, int kv_head,
                                          const OwnHead<kDim>& own) {
  const std::size_t at = page_row(p, slot, kv_head) * kDim;
  for (int i = threadIdx.x; i < 2 * kDim; i += kDecodeWarps * 32) {
    const int d = i % kDim;
    auto* page = static_cast<__nv_bfloat16*>(i < kDim ? p.k_pages : p.v_pages) + at;
    page[d] = __float2bfloat16_rn(i < kDim ? own.k[d] : own.v[d]);
  }
}

/// The row's own k, by the first warp, and v, by the second, become what codes say of them; the
/// codes go to where the slot is if `stores`. As kernels::rope_and_store_kv does it.
template <class Pages, int kDim>
__device__ __forceinline__ void quantise_own(const DecodedRows& p, int slot, int kv_head,
                                             bool stores, OwnHead<kDim>& own) {
  using Element = typename Pages::Element;
  const int lane = threadIdx.x % 32;
  const bool is_value = threadIdx.x / 32 == 1;
  if (threadIdx.x >= 64) return;
  float* head = is_value ? own.v : own.k;
  float largest = 0;
  bool is_strange = false;
  for (int d = lane; d < kDim; d += 32) {
    largest = fmaxf(largest, fabsf(head[d]));
    is_strange = is_strange || !kernels::is_finite(head[d]);
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, mask));
  }
  const float step = __any_sync(~0u, is_strange)
                         ? kernels::as_f32(0x7fc00000u)
                         : largest / kernels::largest_code(static_cast<const Element*>(nullptr));
  const std::size_t row = stores ? page_row(p, slot, kv_head) : 0;
  auto* page = static_cast<Element*>(is_value ? p.v_pages : p.k_pages) + row * kDim;
  if (stores && lane == 0) (is_value ? p.v_steps : p.k_steps)[row] = step;
  for (int d = lane; d < kDim; d += 32) {
    Element code;
    kernels::store_element(head[d], step, &code);
    if (stores) page[d] = code;
    head[d] = kernels::to_f32(code) * step;
  }
}

}  // namespace fovea::cuda
