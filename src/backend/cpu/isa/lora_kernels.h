#pragma once

// Low-rank updates: a few long dot products for every row, then a sum of a few long vectors. Each
// element is summed in one order, whichever rows are computed beside it.

#include "simd.h"

namespace fovea::cpu::FOVEA_ISA {

// Fewer lanes than a vector: the ends of odd sizes. Kept out of line, or its branches would split
// the loops around it.
template <bool kIsBf16>
__attribute__((noinline)) static Floats lora_partial(const void* weights, int64_t at,
                                                     int64_t lanes) {
  if (kIsBf16) return load_bf16_some(static_cast<const uint16_t*>(weights) + at, lanes);
  return load_some(static_cast<const float*>(weights) + at, lanes);
}

template <bool kIsBf16>
static inline Floats lora_vector(const void* weights, int64_t at, int64_t lanes) {
  if (lanes < kLanes) return lora_partial<kIsBf16>(weights, at, lanes);
  if (kIsBf16) return load_bf16(static_cast<const uint16_t*>(weights) + at);
  return load(static_cast<const float*>(weights) + at);
}

// hidden[r][j] = x[r] . a[j] for kRows rows and the kRanks rows of a from `rank` on.
template <bool kIsBf16, int kRows, int kRanks>
static void shrink_tile(const LoraShrinkArgs& args, int64_t row, int64_t rank) {
  const float* x[kRows];
  for (int r = 0; r < kRows; ++r) x[r] = args.x + args.rows[row + r].x_row * args.x_stride;
  Floats sums[kRows][kRanks] = {};
  const auto add = [&](int64_t k, int64_t lanes) __attribute__((always_inline)) {
    Floats values[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) values[r] = lora_vector<false>(x[r], k, lanes);
#pragma GCC unroll 8
    for (int j = 0; j < kRanks; ++j) {
      const Floats weights = lora_vector<kIsBf16>(args.a, (rank + j) * args.cols + k, lanes);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sums[r][j] = multiply_add(values[r], weights, sums[r][j]);
    }
  };
  int64_t k = 0;
  for (; k + kLanes <= args.cols; k += kLanes) add(k, kLanes);
  if (k < args.cols) add(k, args.cols - k);
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kRanks; ++j) {
      args.hidden[(row + r) * args.hidden_stride + rank + j] = sum_lanes(sums[r][j]);
    }
  }
}

template <bool kIsBf16, int kRows, int kRanks>
static void shrink_ranks(const LoraShrinkArgs& args, int64_t row, int64_t begin, int64_t end) {
  int64_t rank = begin;
  for (; rank + kRanks <= end; rank += kRanks) shrink_tile<kIsBf16, kRows, kRanks>(args, row, rank);
  for (; rank < end; ++rank) shrink_tile<kIsBf16, kRows, 1>(args, row, rank);
}

template <bool kIsBf16>
static void shrink_rows(const LoraShrinkArgs& args, int64_t begin, int64_t end) {
  int64_t row = 0;
  for (; row + 4 <= args.num_rows; row += 4) shrink_ranks<kIsBf16, 4, 2>(args, row, begin, end);
  for (; row < args.num_rows; ++row) shrink_ranks<kIsBf16, 1, 8>(args, row, begin, end);
}

static void lora_shrink(const LoraShrinkArgs* args, int64_t rank_begin, int64_t rank_end) {
  if (args->is_bf16 != 0) return shrink_rows<true>(*args, rank_begin, rank_end);
  shrink_rows<false>(*args, rank_begin, rank_end);
}

// y[r] += sum over j of hidden[r][j] b[j], for kRows rows and kVecs vectors of columns; a vector
// has `lanes` lanes when kIsPartial.
template <bool kIsBf16, int kRows, int kVecs, bool kIsPartial>
static void expand_tile(const LoraExpandArgs& args, int64_t row, int64_t col, int64_t lanes) {
  if (!kIsPartial) lanes = kLanes;
  Floats sums[kRows][kVecs] = {};
  for (int64_t j = 0; j < args.rank; ++j) {
    Floats weights[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      weights[v] = lora_vector<kIsBf16>(args.b, j * args.cols + col + v * kLanes, lanes);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Floats value = splat(args.hidden[(row + r) * args.hidden_stride + j]);
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) sums[r][v] = multiply_add(value, weights[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float* y = args.y + args.rows[row + r].y_row * args.y_stride + col;
    for (int v = 0; v < kVecs; ++v, y += kLanes) {
      store_some(y, lora_vector<false>(y, 0, lanes) + sums[r][v], lanes);
    }
  }
}

template <bool kIsBf16, int kRows, int kVecs>
static void expand_cols(const LoraExpandArgs& args, int64_t row, int64_t begin, int64_t end) {
  constexpr int64_t kWidth = int64_t{kVecs} * kLanes;
  int64_t col = begin;
  for (; col + kWidth <= end; col += kWidth) {
    expand_tile<kIsBf16, kRows, kVecs, false>(args, row, col, kLanes);
  }
  for (; col < end; col += kLanes) {
    const int64_t lanes = end - col < kLanes ? end - col : kLanes;
    expand_tile<kIsBf16, kRows, 1, true>(args, row, col, lanes);
  }
}

template <bool kIsBf16>
static void expand_rows(const LoraExpandArgs& args, int64_t begin, int64_t end) {
  int64_t row = 0;
  for (; row + 4 <= args.num_rows; row += 4) expand_cols<kIsBf16, 4, 2>(args, row, begin, end);
  for (; row < args.num_rows; ++row) expand_cols<kIsBf16, 1, 4>(args, row, begin, end);
}

static void lora_expand(const LoraExpandArgs* args, int64_t col_begin, int64_t col_end) {
  if (args->is_bf16 != 0) return expand_rows<true>(*args, col_begin, col_end);
  expand_rows<false>(*args, col_begin, col_end);
}

}  // namespace fovea::cpu::FOVEA_ISA
