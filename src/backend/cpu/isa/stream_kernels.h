#pragma once

// Products of a few rows: the weights pass by once, in memory order, and are widened on the way.
// Sums are the tiled kernel's to the bit: one chain of multiply-adds for each element and slice of
// kDepth. What hides their latency is working on several rows and panels at once.

#include "gemm_kernels.h"

namespace fovea::cpu::FOVEA_ISA {

// Vectors of sums that the registers hold beside the operands.
constexpr int kStreamSums = kLanes == 16 || kVectors == 4 ? 16 : 12;
// More rows take several passes over a slice of the panel, which L1 holds.
constexpr int kStreamRows = kLanes == 16 ? 8 : 4;
constexpr int kStreamPanels = 4;

constexpr int stream_panels_for(int64_t rows) {
  for (int panels = kStreamPanels; panels > 1; panels /= 2) {
    if (rows * kVectors * panels <= kStreamSums) return panels;
  }
  return 1;
}

#if FOVEA_BF16_DOT
typedef uint32_t PairWord __attribute__((may_alias));  // written as two bf16
#endif

// How the panels of each type lie in memory, what a depth of one takes, and what one step along the
// depth does.
struct F32Panels {
  typedef float Value;
  static constexpr int kValueDepth = 1;
  static constexpr int kStep = 1;
  static inline int64_t bytes(int64_t k) { return k * kPanelCols * 4; }
  static inline Floats add(Floats sum, const Value* x, const char* panel, int64_t k, int v) {
    const float* w = reinterpret_cast<const float*>(panel) + k * kPanelCols + v * kLanes;
    return sum + splat(x[k]) * load(w);
  }
};

struct F8Panels {
  typedef float Value;
  static constexpr int kValueDepth = 1;
  static constexpr int kStep = 1;
  static inline int64_t bytes(int64_t k) { return k * kPanelCols; }
  static inline Floats add(Floats sum, const Value* x, const char* panel, int64_t k, int v) {
    const uint8_t* w = reinterpret_cast<const uint8_t*>(panel) + k * kPanelCols + v * kLanes;
    return sum + splat(x[k]) * load_f8(w);
  }
};

// A step is a group: its scales are read once, and its codes eight to a word.
struct Int4Panels {
  typedef float Value;
  static constexpr int kValueDepth = 1;
  static constexpr int kStep = kInt4Group;
  static inline int64_t bytes(int64_t k) { return k / kInt4Group * kInt4GroupBytes; }
};

struct Bf16Panels {
  static constexpr int kStep = 2;
  static inline int64_t bytes(int64_t k) { return (k + (k & 1)) * kPanelCols * 2; }
  static inline Words pairs(const char* panel, int64_t k, int v) {
    return load_pairs(reinterpret_cast<const uint16_t*>(panel) + k * kPanelCols + 2 * v * kLanes);
  }
#if FOVEA_BF16_DOT
  typedef PairWord Value;  // two depths of x
  static constexpr int kValueDepth = 2;
  static inline Floats add(Floats sum, const Value* x, const char* panel, int64_t k, int v) {
    return dot_pairs(sum, x[k / 2], pairs(panel, k, v));
  }
  static inline Floats add_last(Floats sum, const Value* x, const char* panel, int64_t k, int v) {
    return add(sum, x, panel, k, v);  // the pair is filled up with zeros
  }
#else
  typedef float Value;
  static constexpr int kValueDepth = 1;
  static inline Floats add(Floats sum, const Value* x, const char* panel, int64_t k, int v) {
    const Words w = pairs(panel, k, v);
    sum = sum + splat(x[k]) * even_of(w);
    return sum + splat(x[k + 1]) * odd_of(w);
  }
  static inline Floats add_last(Floats sum, const Value* x, const char* panel, int64_t k, int v) {
    return sum + splat(x[k]) * even_of(pairs(panel, k, v));
  }
#endif
};

// acc[row] += x[row] . one step of vector v of a panel.
template <class Panels, int kRows>
static inline void add_step(const typename Panels::Value* const* x, const char* panel, int64_t k,
                            int v, Floats (&acc)[kRows][kVectors]) {
  if constexpr (Panels::kStep == kInt4Group) {
    const uint8_t* group = reinterpret_cast<const uint8_t*>(panel) + Panels::bytes(k);
    const Floats scale = load_f8(group + v * kLanes);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const Words words = load_words(group + kPanelCols * (1 + 4 * half) + 4 * v * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const Floats w = int4_of(words, i) * scale;  // exact
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) acc[r][v] = acc[r][v] + splat(x[r][k + 8 * half + i]) * w;
      }
    }
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) acc[r][v] = Panels::add(acc[r][v], x[r], panel, k, v);
  }
}

// sums[panel][row] (+)= x[row][depth] . panel, `panel_bytes` apart; a row of sums is kPanelCols
// long and panels are `sum_stride` apart.
template <class Panels, int kRows, int kPanels>
static void stream_slice(const typename Panels::Value* const* x, int64_t depth, const char* panel,
                         int64_t panel_bytes, float* sums, int64_t sum_stride, bool accumulate) {
  Floats acc[kPanels][kRows][kVectors];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[p][r][v] = Floats{};
    }
  }
  int64_t k = 0;
  for (; k + Panels::kStep <= depth; k += Panels::kStep) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        add_step<Panels, kRows>(x, panel + p * panel_bytes, k, v, acc[p]);
      }
    }
  }
  if constexpr (Panels::kStep == 2) {
    if (k < depth) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            acc[p][r][v] = Panels::add_last(acc[p][r][v], x[r], panel + p * panel_bytes, k, v);
          }
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        float* out = sums + p * sum_stride + r * kPanelCols + v * kLanes;
        store(out, accumulate ? load(out) + acc[p][r][v] : acc[p][r][v]);
      }
    }
  }
}

// Calls stream_slice for `rows` <= kStreamRows and `panels` <= stream_panels_for(rows).
template <class Panels, int kRows = kStreamRows>
// NOLINTNEXTLINE(readability-function-size): the kernels' common arguments
static void stream_some(int64_t rows, int64_t panels, const typename Panels::Value* const* x,
                        int64_t depth, const char* panel, int64_t panel_bytes, float* sums,
                        int64_t sum_stride, bool accumulate) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return stream_some<Panels, kRows - 1>(rows, panels, x, depth, panel, panel_bytes, sums,
                                            sum_stride, accumulate);
    }
  }
  if constexpr (stream_panels_for(kRows) >= 4) {
    if (panels == 4) {
      return stream_slice<Panels, kRows, 4>(x, depth, panel, panel_bytes, sums, sum_stride,
                                            accumulate);
    }
  }
  if constexpr (stream_panels_for(kRows) >= 2) {
    if (panels == 2) {
      return stream_slice<Panels, kRows, 2>(x, depth, panel, panel_bytes, sums, sum_stride,
                                            accumulate);
    }
  }
  stream_slice<Panels, kRows, 1>(x, depth, panel, panel_bytes, sums, sum_stride, accumulate);
}

// x: the rows of the product, dense or wherever they lie.
template <class Panels>
static void stream_panels(const GemmArgs& g, const typename Panels::Value* const* x,
                          int64_t panel_begin, int64_t panel_end) {
  alignas(64) float sums[kStreamPanels * kMaxStreamRows * kPanelCols];
  const typename Panels::Value* slice[kMaxStreamRows];
  const int64_t sum_stride = g.m * kPanelCols;
  const int64_t panel_bytes = Panels::bytes(g.k);
  // Groups of rows of about one size, each of which would be bound by latency if it were small.
  const int64_t groups = (g.m + kStreamRows - 1) / kStreamRows;
  const int64_t rows_at_once = (g.m + groups - 1) / groups;
  const int64_t most_panels = stream_panels_for(g.m);
  int64_t panels = most_panels;
  for (int64_t panel = panel_begin; panel < panel_end; panel += panels) {
    for (panels = most_panels; panels > panel_end - panel;) panels /= 2;
    const char* weights = static_cast<const char*>(g.panels) + panel * panel_bytes;
    for (int64_t k = 0; k < g.k; k += kDepth) {
      const int64_t depth = g.k - k < kDepth ? g.k - k : kDepth;
      for (int64_t r = 0; r < g.m; ++r) slice[r] = x[r] + k / Panels::kValueDepth;
      for (int64_t r = 0; r < g.m; r += rows_at_once) {
        const int64_t rows = g.m - r < rows_at_once ? g.m - r : rows_at_once;
        stream_some<Panels>(rows, panels, slice + r, depth, weights + Panels::bytes(k), panel_bytes,
                            sums + r * kPanelCols, sum_stride, k != 0);
      }
    }
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t col = (panel + p) * kPanelCols;
      const int64_t count = g.n - col < kPanelCols ? g.n - col : kPanelCols;
      for (int64_t r = 0; r < g.m; ++r) {
        finish_row(g, sums + p * sum_stride + r * kPanelCols, r, col, count);
      }
    }
  }
}

#if FOVEA_BF16_DOT
// As stream_panels for bf16 panels, with x rounded to pairs as the tiled kernel does.
static void stream_dots(const GemmArgs& g, int64_t panel_begin, int64_t panel_end, float* scratch) {
  const int64_t pairs = (g.k + 1) / 2;
  if (g.m * pairs > kGemmScratchFloats) {  // the rounded rows do not fit
    for (int64_t panel = panel_begin; panel < panel_end; panel += kBlockPanels) {
      const int64_t left = panel_end - panel;
      gemm_tile(&g, 0, g.m, panel, panel + (left < kBlockPanels ? left : kBlockPanels), scratch);
    }
    return;
  }
  const PairWord* x[kMaxStreamRows];
  for (int64_t r = 0; r < g.m; ++r) {
    PairWord* words = reinterpret_cast<PairWord*>(scratch) + r * pairs;
    words[pairs - 1] = 0;
    round_row(row_of(g, r), g.k, reinterpret_cast<uint16_t*>(words));
    x[r] = words;
  }
  stream_panels<Bf16Panels>(g, x, panel_begin, panel_end);
}
#endif

static void gemm_stream(const GemmArgs* args, int64_t panel_begin, int64_t panel_end,
                        float* scratch) {
  const GemmArgs& g = *args;
#if FOVEA_BF16_DOT
  if (g.type == PanelType::kBf16) return stream_dots(g, panel_begin, panel_end, scratch);
#else
  (void)scratch;
#endif
  const float* x[kMaxStreamRows];
  for (int64_t r = 0; r < g.m; ++r) x[r] = row_of(g, r);
  if (g.type == PanelType::kF32) return stream_panels<F32Panels>(g, x, panel_begin, panel_end);
  if (g.type == PanelType::kInt4) return stream_panels<Int4Panels>(g, x, panel_begin, panel_end);
  if (g.type == PanelType::kF8) return stream_panels<F8Panels>(g, x, panel_begin, panel_end);
#if !FOVEA_BF16_DOT
  stream_panels<Bf16Panels>(g, x, panel_begin, panel_end);
#endif
}

}  // namespace fovea::cpu::FOVEA_ISA
