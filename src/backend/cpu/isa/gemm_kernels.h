#pragma once

// Products with packed weights: a tiled one for many rows and a streaming one for few.

#include "vector_math.h"

namespace fovea::cpu::FOVEA_ISA {

// A [kDepth][kPanelCols] slice of a panel and a [kDepth][kTileRows] slice of x stay in the
// first-level cache while a register tile is computed.
constexpr int64_t kBlockRows = 24 * kTileRows;  // rows of one tiled call: their x slice fits L2
constexpr int64_t kBlockPanels = 768 / kPanelCols;

// Scratch of a tiled call: the slice of x, one widened slice of a panel, the sums.
constexpr int64_t kSliceFloats = kBlockRows * kDepth;
constexpr int64_t kPanelFloats = kDepth * kPanelCols;
constexpr int64_t kSumFloats = kBlockRows * kBlockPanels * kPanelCols;
constexpr int64_t kGemmScratchFloats = kSliceFloats + kPanelFloats + kSumFloats;

// Finishes `count` (<= kPanelCols) sums of row `row` from column `col` on. Never inlined: which of
// its products and sums are fused may not depend on the kernel that calls it.
__attribute__((noinline)) static void finish_row(const GemmArgs& g, const float* sums, int64_t row,
                                                 int64_t col, int64_t count) {
  float* y = g.y + row * g.y_stride + col;
  const float* add = g.add == nullptr ? nullptr : g.add + (row % g.add_rows) * g.n + col;
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t lanes = count - i < kLanes ? count - i : kLanes;
    Floats v = load(sums + i);
    if (g.scale != nullptr) v *= load_some(g.scale + col + i, lanes);
    if (g.bias != nullptr) v += load_some(g.bias + col + i, lanes);
    v = apply(g.epilogue, v);
    if (add != nullptr) v += load_some(add + i, lanes);
    store_some(y + i, v, lanes);
  }
}

static inline const float* row_of(const GemmArgs& g, int64_t row) {
  return g.x + (g.x_rows == nullptr ? row : g.x_rows[row]) * g.x_stride;
}

// sums[kTileRows][sum_stride] (+)= a . b over `depth`. Element (r, k) of a lies at
// a[r * row_step + k * depth_step]; b is [depth][kPanelCols]. With kScaled what is added to row r
// of sums counts factors[r] times.
template <int64_t kRowStep, int64_t kDepthStep, bool kScaled>
static inline void tile_product(int64_t depth, const float* a, int64_t row_stride, const float* b,
                                float* sums, int64_t sum_stride, bool accumulate,
                                const float* factors) {
  Floats acc[kTileRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[r][v] = Floats{};
  }
  const int64_t row_step = kRowStep != 0 ? kRowStep : row_stride;
  for (int64_t k = 0; k < depth; ++k) {
    Floats w[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) w[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      const Floats x = splat(a[r * row_step]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[r][v] += x * w[v];
    }
    a += kDepthStep;
    b += kPanelCols;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      float* out = sums + r * sum_stride + v * kLanes;
      if (!accumulate) {
        store(out, acc[r][v]);
      } else if (kScaled) {
        store(out, load(out) + acc[r][v] * splat(factors[r]));
      } else {
        store(out, load(out) + acc[r][v]);
      }
    }
  }
}

// Packed a: [depth][kTileRows].
static void packed_tile(int64_t depth, const float* a, const float* b, float* sums,
                        int64_t sum_stride, bool accumulate) {
  tile_product<1, kTileRows, false>(depth, a, 0, b, sums, sum_stride, accumulate, nullptr);
}
// a in rows of `row_stride` floats.
static void strided_tile(int64_t depth, const float* a, int64_t row_stride, const float* b,
                         float* sums, int64_t sum_stride, bool accumulate, const float* factors) {
  tile_product<0, 1, true>(depth, a, row_stride, b, sums, sum_stride, accumulate, factors);
}

// Rows [row_begin, row_end) x depth [k_begin, k_begin + depth) of x -> [tile][depth][kTileRows];
// the rows that fill up the last tile are zeros.
static void pack_rows(const GemmArgs& g, int64_t row_begin, int64_t row_end, int64_t k_begin,
                      int64_t depth, float* packed) {
  for (int64_t row = row_begin; row < row_end; row += kTileRows) {
    const int64_t rows = row_end - row < kTileRows ? row_end - row : kTileRows;
    for (int64_t r = 0; r < kTileRows; ++r) {
      if (r >= rows) {
        for (int64_t k = 0; k < depth; ++k) packed[k * kTileRows + r] = 0;
        continue;
      }
      const float* source = row_of(g, row + r) + k_begin;
      for (int64_t k = 0; k < depth; ++k) packed[k * kTileRows + r] = source[k];
    }
    packed += depth * kTileRows;
  }
}

// Depths that share a scale in int4 panels, and what they take.
constexpr int64_t kInt4Group = 16;
constexpr int64_t kInt4GroupBytes = kPanelCols * (1 + kInt4Group / 2);

// Vector v of the columns of a group, as floats kPanelCols apart: exact.
static inline void widen_int4(const uint8_t* group, int v, float* wide) {
  const Floats scale = load_f8(group + v * kLanes);
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const Words words = load_words(group + kPanelCols * (1 + 4 * half) + 4 * v * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      store(wide + (8 * half + i) * kPanelCols, int4_of(words, i) * scale);
    }
  }
}

// Depth [k_begin, k_begin + depth) of one panel as floats [depth][kPanelCols]; k_begin is even.
// Returns where they are: f32 panels are used in place.
static const float* widen_panel(const GemmArgs& g, int64_t panel, int64_t k_begin, int64_t depth,
                                float* wide) {
  if (g.type == PanelType::kF32) {
    return static_cast<const float*>(g.panels) + (panel * g.k + k_begin) * kPanelCols;
  }
  if (g.type == PanelType::kBf16) {
    const int64_t padded_k = g.k + (g.k & 1);
    const uint16_t* source =
        static_cast<const uint16_t*>(g.panels) + (panel * padded_k + k_begin) * kPanelCols;
    for (int64_t k = 0; k < depth; k += 2) {
      // With odd depth the row past the end is written too: it is padding of the panel, and the
      // buffer has an even number of rows.
      for (int v = 0; v < kVectors; ++v) {
        const Words pairs = load_pairs(source + 2 * v * kLanes);
        store(wide + k * kPanelCols + v * kLanes, even_of(pairs));
        store(wide + (k + 1) * kPanelCols + v * kLanes, odd_of(pairs));
      }
      source += 2 * kPanelCols;
    }
    return wide;
  }
  if (g.type == PanelType::kInt4) {
    const uint8_t* groups = static_cast<const uint8_t*>(g.panels) +
                            (panel * g.k + k_begin) / kInt4Group * kInt4GroupBytes;
    for (int64_t k = 0; k < depth; k += kInt4Group) {
      for (int v = 0; v < kVectors; ++v) {
        widen_int4(groups, v, wide + k * kPanelCols + v * kLanes);
      }
      groups += kInt4GroupBytes;
    }
    return wide;
  }
  const uint8_t* source =
      static_cast<const uint8_t*>(g.panels) + (panel * g.k + k_begin) * kPanelCols;
  for (int64_t i = 0; i < depth * kPanelCols; i += kLanes) store(wide + i, load_f8(source + i));
  return wide;
}

#if FOVEA_BF16_DOT
#include "gemm_bf16_dot.h"
#endif

static void gemm_tile(const GemmArgs* args, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                      int64_t panel_end, float* scratch) {
  const GemmArgs& g = *args;
  float* packed = scratch;
  float* wide = packed + kSliceFloats;
  float* sums = wide + kPanelFloats;  // [panel][tile][kTileRows][kPanelCols]
  const int64_t num_tiles = (row_end - row_begin + kTileRows - 1) / kTileRows;
  constexpr int64_t kTileFloats = int64_t{kTileRows} * kPanelCols;

  for (int64_t k = 0; k < g.k; k += kDepth) {
    const int64_t depth = g.k - k < kDepth ? g.k - k : kDepth;
#if FOVEA_BF16_DOT
    if (g.type == PanelType::kBf16) {
      dot_slice(g, row_begin, row_end, panel_begin, panel_end, k, depth, packed, sums);
      continue;
    }
#endif
    pack_rows(g, row_begin, row_end, k, depth, packed);
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
      const float* b = widen_panel(g, panel, k, depth, wide);
      float* panel_sums = sums + (panel - panel_begin) * num_tiles * kTileFloats;
      for (int64_t tile = 0; tile < num_tiles; ++tile) {
        packed_tile(depth, packed + tile * depth * kTileRows, b, panel_sums + tile * kTileFloats,
                    kPanelCols, k != 0);
      }
    }
  }
  for (int64_t row = row_begin; row < row_end; ++row) {
    const int64_t tile = (row - row_begin) / kTileRows;
    const int64_t row_in_tile = (row - row_begin) % kTileRows;
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
      const int64_t col = panel * kPanelCols;
      const int64_t count = g.n - col < kPanelCols ? g.n - col : kPanelCols;
      const float* row_sums = sums + ((panel - panel_begin) * num_tiles + tile) * kTileFloats +
                              row_in_tile * kPanelCols;
      finish_row(g, row_sums, row, col, count);
    }
  }
}

}  // namespace fovea::cpu::FOVEA_ISA
