#pragma once

// Attention of one query row over pages: every key and value is read once, straight from its page.

#include "attention_kernels.h"

namespace fovea::cpu::FOVEA_ISA {

static inline Floats page_vector(const void* base, int64_t at, int64_t lanes, bool is_bf16) {
  return is_bf16 ? load_bf16_some(static_cast<const uint16_t*>(base) + at, lanes)
                 : load_some(static_cast<const float*>(base) + at, lanes);
}

// scores[i] = q . key for the `count` leading positions of one page; q is scaled already. Writes up
// to kLanes - 1 further floats.
template <bool kIsBf16>
static void score_page(const DecodeArgs& a, const float* q, int64_t page, int64_t count,
                       float* scores) {
  const int64_t base = page * a.kv.page_stride;
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t lanes = a.kv.page_size - i < kLanes ? a.kv.page_size - i : kLanes;
    Floats sums[4] = {};
    for (int64_t d = 0; d < a.head_dim; d += 4) {
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        const int64_t at = base + (d + c) * a.kv.page_size + i;
        sums[c] += splat(q[d + c]) * page_vector(a.kv.k_pages, at, lanes, kIsBf16);
      }
    }
    store(scores + i, (sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
}

// out[head_dim] += weights . values of the `count` leading positions of one page.
template <bool kIsBf16>
static void add_page_values(const DecodeArgs& a, const float* weights, int64_t page, int64_t count,
                            float* out) {
  constexpr int64_t kGroup = 4 * kLanes;
  const int64_t base = page * a.kv.page_stride;
  for (int64_t d = 0; d < a.head_dim; d += kGroup) {
    Floats sums[4];
    int64_t lanes[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const int64_t left = a.head_dim - d - c * kLanes;
      lanes[c] = left < 0 ? 0 : (left < kLanes ? left : kLanes);
      sums[c] = load(out + d + c * kLanes);
    }
    if (lanes[3] == kLanes) {
      for (int64_t i = 0; i < count; ++i) {
        const Floats weight = splat(weights[i]);
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) {
          const int64_t at = base + i * a.head_dim + d + c * kLanes;
          sums[c] += weight * page_vector(a.kv.v_pages, at, kLanes, kIsBf16);
        }
      }
    } else {
      for (int64_t i = 0; i < count; ++i) {
        for (int c = 0; c < 4 && lanes[c] > 0; ++c) {
          const int64_t at = base + i * a.head_dim + d + c * kLanes;
          sums[c] += splat(weights[i]) * page_vector(a.kv.v_pages, at, lanes[c], kIsBf16);
        }
      }
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) store(out + d + c * kLanes, sums[c]);
  }
}

template <bool kIsBf16>
static void decode_row(const DecodeArgs& a, float* scratch) {
  constexpr int64_t kPositions = 512;  // scored together; at least one page
  float* scores = scratch;             // [kPositions + 64]: a page may start in the last place
  float* q = scores + kPositions + 2 * 64;
  float* out = q + kMaxHeadDim;  // whole groups of vectors
  const float scale = kLog2E / __builtin_sqrtf(static_cast<float>(a.head_dim));
  for (int64_t d = 0; d < a.head_dim; ++d) q[d] = a.q[d] * scale;
  for (int64_t d = 0; d < a.head_dim + 4 * kLanes; d += kLanes) store(out + d, Floats{});
  float running_max = kMinusInfinity;
  float running_sum = 0;
  const int64_t page_size = a.kv.page_size;
  const int64_t pages_at_once = kPositions / page_size;
  for (int64_t begin = a.key_begin; begin < a.key_end; begin += pages_at_once * page_size) {
    const int64_t left = a.key_end - begin;
    const int64_t count = left < pages_at_once * page_size ? left : pages_at_once * page_size;
    for (int64_t i = 0; i < count; i += page_size) {
      const int64_t in_page = count - i < page_size ? count - i : page_size;
      score_page<kIsBf16>(a, q, a.kv.page_table[(begin + i) / page_size], in_page, scores + i);
    }
    const float shrink = soften_row(scores, count, count, &running_max, &running_sum);
    if (shrink != 1.0f) {
      for (int64_t d = 0; d < a.head_dim; d += kLanes) {
        store(out + d, load(out + d) * splat(shrink));
      }
    }
    for (int64_t i = 0; i < count; i += page_size) {
      const int64_t in_page = count - i < page_size ? count - i : page_size;
      add_page_values<kIsBf16>(a, scores + i, a.kv.page_table[(begin + i) / page_size], in_page,
                               out);
    }
  }
  for (int64_t d = 0; d < a.head_dim; ++d) a.out[d] = out[d];
  *a.max_log2 = running_max;
  *a.sum = running_sum;
}

static void attend_decode(const DecodeArgs* args, float* scratch) {
  if (args->kv.is_bf16 != 0) {
    decode_row<true>(*args, scratch);
  } else {
    decode_row<false>(*args, scratch);
  }
}

}  // namespace fovea::cpu::FOVEA_ISA
