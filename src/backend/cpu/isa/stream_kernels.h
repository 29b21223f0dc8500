#pragma once

// Products of a few rows: the weights pass by once, in memory order, and are widened on the way.

#include "gemm_kernels.h"

namespace fovea::cpu::FOVEA_ISA {

// Depth of one pass when the rows need several: the slice of the panel is read again from L1.
constexpr int64_t kStreamDepth = 512;

template <PanelType kType>
static inline const void* panel_at(const GemmArgs& g, int64_t panel, int64_t k) {
  if (kType == PanelType::kF32) {
    return static_cast<const float*>(g.panels) + (panel * g.k + k) * kPanelCols;
  }
  if (kType == PanelType::kBf16) {
    return static_cast<const uint16_t*>(g.panels) + (panel * (g.k + (g.k & 1)) + k) * kPanelCols;
  }
  return static_cast<const uint8_t*>(g.panels) + (panel * g.k + k) * kPanelCols;
}

// Vector v of depth k (k even for bf16, whose `odd` half is depth k + 1).
template <PanelType kType>
static inline Floats weights_at(const void* panel, int64_t k, int v, bool odd) {
  if (kType == PanelType::kF32) {
    return load(static_cast<const float*>(panel) + k * kPanelCols + v * kLanes);
  }
  if (kType == PanelType::kBf16) {
    const Words pairs =
        load_pairs(static_cast<const uint16_t*>(panel) + k * kPanelCols + 2 * v * kLanes);
    return odd ? odd_of(pairs) : even_of(pairs);
  }
  return load_f8(static_cast<const uint8_t*>(panel) + k * kPanelCols + v * kLanes);
}

// sums[kRows][kPanelCols] (+)= x[kRows][depth] . panel; kChains independent sums per element hide
// the latency of the additions when there are few rows.
template <PanelType kType, int kRows, int kChains>
static void stream_rows(const float* const* x, int64_t depth, const void* panel, float* sums,
                        bool accumulate) {
  Floats acc[kChains][kRows][kVectors];
#pragma GCC unroll 8
  for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[c][r][v] = Floats{};
    }
  }
  int64_t k = 0;
  for (; k + kChains <= depth; k += kChains) {
#pragma GCC unroll 8
    for (int c = 0; c < kChains; ++c) {
      const bool odd = kType == PanelType::kBf16 && (c & 1) != 0;
      Floats w[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        w[v] = weights_at<kType>(panel, k + (odd ? c - 1 : c), v, odd);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Floats value = splat(x[r][k + c]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) acc[c][r][v] += value * w[v];
      }
    }
  }
  for (; k < depth; ++k) {
    const bool odd = kType == PanelType::kBf16 && (k & 1) != 0;
    for (int v = 0; v < kVectors; ++v) {
      const Floats w = weights_at<kType>(panel, odd ? k - 1 : k, v, odd);
      for (int r = 0; r < kRows; ++r) acc[0][r][v] += splat(x[r][k]) * w;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Floats total = acc[0][r][v];
#pragma GCC unroll 8
      for (int c = 1; c < kChains; ++c) total += acc[c][r][v];
      float* out = sums + r * kPanelCols + v * kLanes;
      store(out, accumulate ? load(out) + total : total);
    }
  }
}

template <PanelType kType>
static void stream_some_rows(int64_t rows, const float* const* x, int64_t depth, const void* panel,
                             float* sums, bool accumulate) {
  switch (rows) {
    case 1:
      return stream_rows<kType, 1, 4>(x, depth, panel, sums, accumulate);
    case 2:
      return stream_rows<kType, 2, 2>(x, depth, panel, sums, accumulate);
    case 3:
      return stream_rows<kType, 3, 2>(x, depth, panel, sums, accumulate);
    default:
      return stream_rows<kType, 4, 2>(x, depth, panel, sums, accumulate);
  }
}

template <PanelType kType>
static void stream_panels(const GemmArgs& g, int64_t panel_begin, int64_t panel_end) {
  constexpr int64_t kRowsAtOnce = 4;
  alignas(64) float sums[kMaxStreamRows * kPanelCols];
  const float* x[kMaxStreamRows];
  const int64_t pass = g.m <= kRowsAtOnce ? g.k + 1 : kStreamDepth;
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    for (int64_t k = 0; k < g.k; k += pass) {
      const int64_t depth = g.k - k < pass ? g.k - k : pass;
      for (int64_t r = 0; r < g.m; ++r) x[r] = row_of(g, r) + k;
      for (int64_t r = 0; r < g.m; r += kRowsAtOnce) {
        const int64_t rows = g.m - r < kRowsAtOnce ? g.m - r : kRowsAtOnce;
        stream_some_rows<kType>(rows, x + r, depth, panel_at<kType>(g, panel, k),
                                sums + r * kPanelCols, k != 0);
      }
    }
    const int64_t col = panel * kPanelCols;
    const int64_t count = g.n - col < kPanelCols ? g.n - col : kPanelCols;
    for (int64_t r = 0; r < g.m; ++r) finish_row(g, sums + r * kPanelCols, r, col, count);
  }
}

static void gemm_stream(const GemmArgs* args, int64_t panel_begin, int64_t panel_end) {
  switch (args->type) {
    case PanelType::kF32:
      return stream_panels<PanelType::kF32>(*args, panel_begin, panel_end);
    case PanelType::kBf16:
      return stream_panels<PanelType::kBf16>(*args, panel_begin, panel_end);
    case PanelType::kF8:
      return stream_panels<PanelType::kF8>(*args, panel_begin, panel_end);
  }
}

}  // namespace fovea::cpu::FOVEA_ISA
