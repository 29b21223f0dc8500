#pragma once

// The border between the CPU backend and its kernels, which are compiled once per instruction set.
// Plain data only: this header is seen by files compiled for instruction sets that the running
// processor may lack, so it must hold no inline function and no template (the linker keeps one copy
// of those for the whole program, possibly the one that faults).

#include <stdint.h>

namespace fovea::cpu {

/// Element type of packed weight panels.
enum class PanelType : int32_t { kF32, kBf16, kF8, kInt4 };

/// Elementwise function after a product.
enum class Epilogue : int32_t { kNone, kGeluTanh, kGeluErf };

/// Rows of a product that the streaming kernel takes; more go to the tiled one.
constexpr int64_t kMaxStreamRows = 16;

/// Depths that a product sums in one chain of multiply-adds: every element of y is the sum, in
/// order, of one such chain for each slice of this depth. All kernels keep to it, so that a row
/// comes out the same to the bit whatever rows it is computed with.
constexpr int64_t kDepth = 256;

/// Keys that attention weighs against their own maximum before they join what came before: blocks
/// begin at multiples of it. All kernels keep to it, to the same end.
constexpr int64_t kKeyBlock = 128;

/// y[r] = epilogue(scale * (x[r] . W^T) + bias) + add[r mod add_rows], for m rows and n columns.
///
/// W is packed in panels of `panel_cols` columns (the last one padded with zeros):
///   f32   [k][panel_cols]
///   bf16  [ceil(k / 2)][panel_cols][2], the pairs that dot-product instructions want
///   f8    [k][panel_cols] e4m3 codes without NaN
///   int4  [k / 16], k being a multiple of 16, of: e4m3 scales [panel_cols], and words
///         [2][panel_cols] of 8 depths each, the first in the lowest bits, in two's complement
struct GemmArgs {
  const float* x;
  int64_t x_stride;       // floats between rows of x
  const int32_t* x_rows;  // row r of the product reads row x_rows[r] of x; null = r
  const void* panels;
  PanelType type;
  const float* scale;  // [n] or null
  const float* bias;   // [n] or null
  Epilogue epilogue;
  const float* add;  // [add_rows][n] dense, or null; may be y when add_rows == m
  int64_t add_rows;
  float* y;
  int64_t y_stride;
  int64_t m, n, k;
};

/// Element type of pages of keys and values.
enum class PageType : int32_t { kF32, kBf16, kI8, kF8 };

/// Where one head's keys and values lie. Dense (k and v rows in one matrix) or paged.
struct KeyValueArgs {
  const float* k;  // dense: row of key 0
  const float* v;
  int64_t row_stride;  // floats between rows

  const void* k_pages;  // paged, when page_table is not null: this head's K in page 0,
  const void* v_pages;  // [head_dim][page_size], and V, [page_size][head_dim]
  int64_t page_stride;  // elements between pages
  const int32_t* page_table;
  int32_t page_size;  // multiple of 8
  PageType type;
  const float* k_scales;  // of codes: this head's scales in page 0, [page_size], what an element
  const float* v_scales;  // counts times
  int64_t scale_stride;   // floats between pages
};

/// Rows of one query head. Row r sits at position first_position + r and sees the keys
/// [0, max(position + 1, position < prefix ? prefix : 0)), at most num_keys.
struct AttentionArgs {
  const float* q;
  int64_t q_stride;
  int64_t num_rows;  // at most attention_rows of the table
  int64_t first_position;
  int64_t prefix;
  int64_t num_keys;
  int32_t head_dim;  // at most kMaxHeadDim
  KeyValueArgs kv;
  float* out;
  int64_t out_stride;
};

/// One query row against the first num_keys keys, of which the blocks [block_begin, block_end) of
/// kKeyBlock are looked at. Leaves for each sum(exp2(s - max) v), max and sum(exp2(s - max)),
/// scores being in units of log2; join_blocks makes a row of the output of them.
struct DecodeArgs {
  const float* q;
  int64_t num_keys;
  int64_t block_begin, block_end;
  int32_t head_dim;
  KeyValueArgs kv;  // paged
  float* partials;  // [block_end - block_begin][head_dim + 2]
};

constexpr int32_t kMaxHeadDim = 256;

/// One row of a low-rank update: where its input and its output lie, and whose matrices it takes.
struct LoraRow {
  int32_t matrix;
  int32_t x_row;
  int32_t y_row;
};

/// hidden[i][j] = x[rows[i].x_row] . a[j], for rows that share one matrix.
struct LoraShrinkArgs {
  const LoraRow* rows;
  int64_t num_rows;
  const float* x;
  int64_t x_stride;
  const void* a;  // [ranks][cols] f32 or bf16
  int32_t is_bf16;
  int64_t cols;
  float* hidden;  // [num_rows][hidden_stride]
  int64_t hidden_stride;
};

/// y[rows[i].y_row] += sum over j < rank of hidden[i][j] b[j].
struct LoraExpandArgs {
  const LoraRow* rows;
  int64_t num_rows;
  const float* hidden;  // [num_rows][hidden_stride]
  int64_t hidden_stride;
  const void* b;  // [rank][cols] f32 or bf16
  int32_t is_bf16;
  int64_t rank;
  int64_t cols;
  float* y;
  int64_t y_stride;
};

/// What one instruction set offers. `scratch` is memory of the calling thread, 64-byte aligned,
/// scratch_floats long.
struct KernelTable {
  const char* name;
  int32_t panel_cols;      // columns of a weight panel
  int32_t row_step;        // rows of a register tile: other row counts waste part of one
  int32_t block_rows;      // most rows of a gemm_tile call
  int32_t block_panels;    // most panels of a gemm_tile call
  int32_t attention_rows;  // most rows of an attend call
  int64_t scratch_floats;

  // Rows [row_begin, row_end) x panels [panel_begin, panel_end) of a product of any size.
  void (*gemm_tile)(const GemmArgs* args, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                    int64_t panel_end, float* scratch);
  // All rows (m <= kMaxStreamRows) x panels: every weight is read once, in order.
  void (*gemm_stream)(const GemmArgs* args, int64_t panel_begin, int64_t panel_end, float* scratch);

  void (*attend)(const AttentionArgs* args, float* scratch);
  void (*attend_decode)(const DecodeArgs* args);
  // partials [num_blocks][head_dim + 2] of all blocks of one row, in order -> out [head_dim].
  void (*join_blocks)(const float* partials, int64_t num_blocks, int32_t head_dim, float* out);

  // One row of n floats; y may be x.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, float* y,
                     int64_t n);
  void (*activate)(const float* x, Epilogue epilogue, float* y, int64_t n);
  // y = gelu_erf(h) * (g + 1); y may be h.
  void (*gelu_gate)(const float* h, const float* g, float* y, int64_t n);
  // y += a x.
  void (*add_scaled)(float a, const float* x, float* y, int64_t n);
  // The largest element (NaN counts as -infinity) and sum(exp(x - max)); 0 when max is not finite.
  void (*max_sum_exp)(const float* x, int64_t n, float* max, double* sum);

  // A range of ranks for all rows, and a range of columns. Results of a row do not depend on the
  // rows beside it, nor on how ranges are cut.
  void (*lora_shrink)(const LoraShrinkArgs* args, int64_t rank_begin, int64_t rank_end);
  void (*lora_expand)(const LoraExpandArgs* args, int64_t col_begin, int64_t col_end);
};

// The tables that a build may hold; which of them exist depends on the target architecture.
extern const KernelTable kGenericKernels;
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;
extern const KernelTable kAvx512Bf16Kernels;
extern const KernelTable kNeonKernels;
extern const KernelTable kNeonBf16Kernels;

}  // namespace fovea::cpu
