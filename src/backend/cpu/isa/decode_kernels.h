#pragma once

// Attention of one query row over pages: every key and value is read once, straight from its page.
// The numbers are those of attention_kernels.h to the bit: a chain of multiply-adds over head_dim
// for each score, and over the keys of a block for each sum.

#include "attention_kernels.h"

namespace fovea::cpu::FOVEA_ISA {

// Vectors summed side by side: enough to hide the latency of the additions.
constexpr int kDecodeSums = 8;

// How the elements of a page are read: `lanes` of them from element `at` of `base` on, each counted
// as often as its lane of `scale` says, if there are scales.
struct F32Page {
  static constexpr bool kScaled = false;
  static inline Floats some(const void* base, int64_t at, Floats, int64_t lanes) {
    return load_some(static_cast<const float*>(base) + at, lanes);
  }
};
struct Bf16Page {
  static constexpr bool kScaled = false;
  static inline Floats some(const void* base, int64_t at, Floats, int64_t lanes) {
    return load_bf16_some(static_cast<const uint16_t*>(base) + at, lanes);
  }
};
struct I8Page {
  static constexpr bool kScaled = true;
  static inline Floats some(const void* base, int64_t at, Floats scale, int64_t lanes) {
    return load_i8_some(static_cast<const int8_t*>(base) + at, lanes) * scale;
  }
};
struct F8Page {
  static constexpr bool kScaled = true;
  static inline Floats some(const void* base, int64_t at, Floats scale, int64_t lanes) {
    return load_f8_some(static_cast<const uint8_t*>(base) + at, lanes) * scale;
  }
};

// Element 0 of dimension 0 of the key at `position`; the dimensions are page_size apart.
static inline int64_t key_at(const KeyValueArgs& kv, int64_t position) {
  return kv.page_table[position / kv.page_size] * kv.page_stride + position % kv.page_size;
}

// scores[i] = q . key for the keys [begin, begin + count), q being scaled already; begin is a
// multiple of 8. Writes up to kLanes - 1 further floats.
template <class Page>
static void score_keys(const DecodeArgs& a, const float* q, int64_t begin, int64_t count,
                       float* scores) {
  const int64_t page_size = a.kv.page_size;
  if (page_size % kLanes != 0) {
    for (int64_t i = 0; i < count;) {
      const int64_t left = page_size - (begin + i) % page_size;
      const int64_t lanes = left < kLanes ? left : kLanes;
      const int64_t at = key_at(a.kv, begin + i);
      Floats scale = {};
      if (Page::kScaled) scale = load_some(a.kv.k_scales + scale_at(a.kv, begin + i), lanes);
      Floats sum = {};
      for (int64_t d = 0; d < a.head_dim; ++d) {
        sum += splat(q[d]) * Page::some(a.kv.k_pages, at + d * page_size, scale, lanes);
      }
      store(scores + i, sum);
      i += lanes;
    }
    return;
  }
  for (int64_t i = 0; i < count; i += kDecodeSums * kLanes) {
    int64_t at[kDecodeSums];
    Floats scales[kDecodeSums] = {};
    for (int j = 0; j < kDecodeSums; ++j) {
      // Past the end the first vector is computed again: a fixed count keeps the sums in registers.
      const int64_t key = i + j * kLanes < count ? i + j * kLanes : i;
      at[j] = key_at(a.kv, begin + key);
      if (Page::kScaled) scales[j] = load(a.kv.k_scales + scale_at(a.kv, begin + key));
    }
    Floats sums[kDecodeSums] = {};
    for (int64_t d = 0; d < a.head_dim; ++d) {
      const Floats x = splat(q[d]);
#pragma GCC unroll 8
      for (int j = 0; j < kDecodeSums; ++j) {
        sums[j] += x * Page::some(a.kv.k_pages, at[j] + d * page_size, scales[j], kLanes);
      }
    }
    for (int j = 0; j < kDecodeSums && i + j * kLanes < count; ++j) {
      store(scores + i + j * kLanes, sums[j]);
    }
  }
}

// sums[d + ...] = weights . values of the keys [begin, begin + count), for kVectorCount vectors
// from dimension d on; the last of them is `lanes` long.
template <class Page, int kVectorCount>
static void add_values(const DecodeArgs& a, const float* weights, int64_t begin, int64_t count,
                       int64_t d, int64_t lanes, float* out) {
  Floats sums[kVectorCount] = {};
  const int64_t page_size = a.kv.page_size;
  for (int64_t i = 0; i < count;) {
    const int64_t offset = (begin + i) % page_size;
    const int64_t in_page = page_size - offset < count - i ? page_size - offset : count - i;
    int64_t at =
        a.kv.page_table[(begin + i) / page_size] * a.kv.page_stride + offset * a.head_dim + d;
    const float* scales = Page::kScaled ? a.kv.v_scales + scale_at(a.kv, begin + i) : nullptr;
    for (int64_t key = 0; key < in_page; ++key) {
      const Floats weight = splat(weights[i + key]);
      const Floats scale = Page::kScaled ? splat(scales[key]) : Floats{};
#pragma GCC unroll 8
      for (int c = 0; c < kVectorCount; ++c) {
        sums[c] += weight * Page::some(a.kv.v_pages, at + c * kLanes, scale,
                                       c + 1 < kVectorCount ? kLanes : lanes);
      }
      at += a.head_dim;
    }
    i += in_page;
  }
#pragma GCC unroll 8
  for (int c = 0; c < kVectorCount; ++c) {
    store_some(out + d + c * kLanes, sums[c], c + 1 < kVectorCount ? kLanes : lanes);
  }
}

template <class Page>
static void sum_values(const DecodeArgs& a, const float* weights, int64_t begin, int64_t count,
                       float* out) {
  int64_t d = 0;
  for (; d + 8 * kLanes <= a.head_dim; d += 8 * kLanes) {
    add_values<Page, 8>(a, weights, begin, count, d, kLanes, out);
  }
  for (; d + 4 * kLanes <= a.head_dim; d += 4 * kLanes) {
    add_values<Page, 4>(a, weights, begin, count, d, kLanes, out);
  }
  for (; d < a.head_dim; d += kLanes) {
    const int64_t left = a.head_dim - d;
    add_values<Page, 1>(a, weights, begin, count, d, left < kLanes ? left : kLanes, out);
  }
}

template <class Page>
static void decode_blocks(const DecodeArgs& a) {
  alignas(64) float scores[kKeyBlock + kLanes];
  alignas(64) float q[kMaxHeadDim];
  const float scale = kLog2E / __builtin_sqrtf(static_cast<float>(a.head_dim));
  for (int64_t d = 0; d < a.head_dim; ++d) q[d] = a.q[d] * scale;
  float* partial = a.partials;
  for (int64_t block = a.block_begin; block < a.block_end; ++block) {
    const int64_t begin = block * kKeyBlock;
    const int64_t count = a.num_keys - begin < kKeyBlock ? a.num_keys - begin : kKeyBlock;
    score_keys<Page>(a, q, begin, count, scores);
    const Softmax softmax = soften_row(scores, count, count);
    sum_values<Page>(a, scores, begin, count, partial);
    partial[a.head_dim] = softmax.max;
    partial[a.head_dim + 1] = softmax.sum;
    partial += a.head_dim + 2;
  }
}

static void attend_decode(const DecodeArgs* args) {
  switch (args->kv.type) {
    case PageType::kF32:
      return decode_blocks<F32Page>(*args);
    case PageType::kBf16:
      return decode_blocks<Bf16Page>(*args);
    case PageType::kI8:
      return decode_blocks<I8Page>(*args);
    case PageType::kF8:
      return decode_blocks<F8Page>(*args);
  }
}

static void join_blocks(const float* partials, int64_t num_blocks, int32_t head_dim, float* out) {
  alignas(64) float sums[kMaxHeadDim + kLanes];
  Softmax row = {partials[head_dim], partials[head_dim + 1]};
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    const int64_t lanes = head_dim - d < kLanes ? head_dim - d : kLanes;
    store(sums + d, load_some(partials + d, lanes));
  }
  for (int64_t block = 1; block < num_blocks; ++block) {
    const float* partial = partials + block * (head_dim + 2);
    const JoinFactors factors = join({partial[head_dim], partial[head_dim + 1]}, &row);
    shrink_sums(factors.earlier, head_dim, sums);
    for (int64_t d = 0; d < head_dim; d += kLanes) {
      const int64_t lanes = head_dim - d < kLanes ? head_dim - d : kLanes;
      store(sums + d, load(sums + d) + load_some(partial + d, lanes) * splat(factors.block));
    }
  }
  finish_attention(sums, row.sum, head_dim, out);
}

}  // namespace fovea::cpu::FOVEA_ISA
