#pragma once

// Matrix products, y = activation(x . weight^T * scale + bias) + add. Every sum runs over the depth
// in ascending order, one term after another, whatever the shape of the tile: a row comes out the
// same to the bit at any batch.

#include "int4_tile.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kGemmDepth = 16;  // of the slices that a tile stages

// What GemmParams::flags may hold.
constexpr GPU_CONST u32 kGemmScale = 1;  // rows of the weight have scales
constexpr GPU_CONST u32 kGemmBias = 2;
constexpr GPU_CONST u32 kGemmAddF32 = 4;   // add is f32
constexpr GPU_CONST u32 kGemmAddSame = 8;  // add has the type of y

struct GemmParams {
  u32 m;
  u32 n;
  u32 k;
  u32 flags;
  u32 activation;
  u32 add_rows;
  u32 pad0_, pad1_;
};

/// The shape of a tile: kRows x kCols outputs of a block of 128 threads.
template <u32 kRows_, u32 kCols_, u32 kRowsPerThread_, u32 kColsPerThread_>
struct TileShape {
  static constexpr u32 kRows = kRows_;
  static constexpr u32 kCols = kCols_;
  static constexpr u32 kRowsPerThread = kRowsPerThread_;
  static constexpr u32 kColsPerThread = kColsPerThread_;
  static constexpr u32 kThreads = kRows / kRowsPerThread * (kCols / kColsPerThread);
  static constexpr u32 kScratchBytes = (kRows + kCols) * kGemmDepth * 4;
};
using TallTile = TileShape<64, 64, 8, 4>;
using FlatTile = TileShape<8, 128, 8, 1>;  // for a few rows: decoding

// acc[r][c] = sum over k of x[row_of(r), k] * weight[col_of(c), k]. Rows are those of x, or what
// `row_table` says of them; rows from `num_rows` on and columns from n on count as zeros.
template <class Tile, class X, class W>
GPU_FN void multiply_tile(Thread t, u32 k, const GPU_GLOBAL X* x, const GPU_GLOBAL i32* row_table,
                          u32 row_begin, u32 row_end, const GPU_GLOBAL W* weight, u32 col_begin,
                          u32 n, GPU_SHARED char* scratch,
                          float (&acc)[Tile::kRowsPerThread][Tile::kColsPerThread]) {
  GPU_SHARED float* x_tile = reinterpret_cast<GPU_SHARED float*>(scratch);  // [depth][rows]
  GPU_SHARED float* w_tile = x_tile + kGemmDepth * Tile::kRows;             // [depth][cols]
  constexpr u32 kThreadCols = Tile::kCols / Tile::kColsPerThread;
  const u32 first_row = t.index / kThreadCols * Tile::kRowsPerThread;
  const u32 first_col = t.index % kThreadCols * Tile::kColsPerThread;
  GPU_UNROLL
  for (u32 r = 0; r < Tile::kRowsPerThread; ++r) {
    GPU_UNROLL
    for (u32 c = 0; c < Tile::kColsPerThread; ++c) acc[r][c] = 0;
  }
  for (u32 k_begin = 0; k_begin < k; k_begin += kGemmDepth) {
    for (u32 i = t.index; i < Tile::kRows * kGemmDepth; i += Tile::kThreads) {
      const u32 row = row_begin + i / kGemmDepth;
      const u32 depth = k_begin + i % kGemmDepth;
      float value = 0;
      if (row < row_end && depth < k) {
        const u32 from = row_table == nullptr ? row : static_cast<u32>(row_table[row]);
        value = to_f32(x[static_cast<u64>(from) * k + depth]);
      }
      x_tile[i % kGemmDepth * Tile::kRows + i / kGemmDepth] = value;
    }
    for (u32 i = t.index; i < Tile::kCols * kGemmDepth; i += Tile::kThreads) {
      const u32 col = col_begin + i / kGemmDepth;
      const u32 depth = k_begin + i % kGemmDepth;
      const bool inside = col < n && depth < k;
      w_tile[i % kGemmDepth * Tile::kCols + i / kGemmDepth] =
          inside ? weight_at(weight, k, col, depth) : 0.0f;
    }
    block_sync(t);
    GPU_UNROLL
    for (u32 d = 0; d < kGemmDepth; ++d) {
      GPU_SHARED const float* xs = x_tile + d * Tile::kRows + first_row;
      GPU_SHARED const float* ws = w_tile + d * Tile::kCols + first_col;
      GPU_UNROLL
      for (u32 r = 0; r < Tile::kRowsPerThread; ++r) {
        GPU_UNROLL
        for (u32 c = 0; c < Tile::kColsPerThread; ++c) acc[r][c] = gpu_fma(xs[r], ws[c], acc[r][c]);
      }
    }
    block_sync(t);
  }
}

// Grid: x = tiles of columns, y = tiles of rows. y may be add.
template <class X, class W, class Y, class Tile>
GPU_FN void gemm(Thread t, const GPU_CONST GemmParams& p, const GPU_GLOBAL X* x,
                 const GPU_GLOBAL W* weight, const GPU_GLOBAL float* scale,
                 const GPU_GLOBAL float* bias, const GPU_GLOBAL float* add_f32,
                 const GPU_GLOBAL Y* add_same, GPU_GLOBAL Y* y, GPU_SHARED char* scratch) {
  float acc[Tile::kRowsPerThread][Tile::kColsPerThread];
  const u32 row_begin = t.block.y * Tile::kRows;
  const u32 col_begin = t.block.x * Tile::kCols;
  multiply_tile<Tile>(t, p.k, x, static_cast<const GPU_GLOBAL i32*>(nullptr), row_begin, p.m,
                      weight, col_begin, p.n, scratch, acc);
  constexpr u32 kThreadCols = Tile::kCols / Tile::kColsPerThread;
  const u32 first_row = row_begin + t.index / kThreadCols * Tile::kRowsPerThread;
  const u32 first_col = col_begin + t.index % kThreadCols * Tile::kColsPerThread;
  GPU_UNROLL
  for (u32 r = 0; r < Tile::kRowsPerThread; ++r) {
    const u32 row = first_row + r;
    if (row >= p.m) continue;
    GPU_UNROLL
    for (u32 c = 0; c < Tile::kColsPerThread; ++c) {
      const u32 col = first_col + c;
      if (col >= p.n) continue;
      float value = acc[r][c];
      const float factor = (p.flags & kGemmScale) != 0 ? scale[col] : 1.0f;
      const float offset = (p.flags & kGemmBias) != 0 ? bias[col] : 0.0f;
      value = gpu_fma(value, factor, offset);
      value = activated(value, p.activation);
      const u64 add_at = static_cast<u64>(row % p.add_rows) * p.n + col;
      if ((p.flags & kGemmAddF32) != 0) value += add_f32[add_at];
      if ((p.flags & kGemmAddSame) != 0) value += to_f32(add_same[add_at]);
      y[static_cast<u64>(row) * p.n + col] = from_f32<Y>(value);
    }
  }
}

struct ExpertGemmParams {
  u32 n;
  u32 k;
  u32 expert;
  u32 flags;  // kGemmScale
};

// The product of one expert: rows offsets[expert] to offsets[expert + 1] of y, f32, of the rows of
// x that row_table names (or the same rows where kByTable is false). Grid: x = tiles of columns,
// y = tiles of rows, enough for every row; blocks without rows end at once.
template <class X, class W, class Tile, bool kByTable>
GPU_FN void expert_gemm(Thread t, const GPU_CONST ExpertGemmParams& p, const GPU_GLOBAL X* x,
                        const GPU_GLOBAL W* weight, const GPU_GLOBAL float* scale,
                        const GPU_GLOBAL i32* offsets, const GPU_GLOBAL i32* row_table,
                        GPU_GLOBAL float* y, GPU_SHARED char* scratch) {
  const u32 row_begin = static_cast<u32>(offsets[p.expert]) + t.block.y * Tile::kRows;
  const u32 row_end = static_cast<u32>(offsets[p.expert + 1]);
  if (row_begin >= row_end) return;
  float acc[Tile::kRowsPerThread][Tile::kColsPerThread];
  const u32 col_begin = t.block.x * Tile::kCols;
  const GPU_GLOBAL i32* table = row_table;
  if (!kByTable) table = nullptr;
  multiply_tile<Tile>(t, p.k, x, table, row_begin, row_end, weight, col_begin, p.n, scratch, acc);
  constexpr u32 kThreadCols = Tile::kCols / Tile::kColsPerThread;
  const u32 first_row = row_begin + t.index / kThreadCols * Tile::kRowsPerThread;
  const u32 first_col = col_begin + t.index % kThreadCols * Tile::kColsPerThread;
  GPU_UNROLL
  for (u32 r = 0; r < Tile::kRowsPerThread; ++r) {
    const u32 row = first_row + r;
    if (row >= row_end) continue;
    GPU_UNROLL
    for (u32 c = 0; c < Tile::kColsPerThread; ++c) {
      const u32 col = first_col + c;
      if (col >= p.n) continue;
      const float factor = (p.flags & kGemmScale) != 0 ? scale[col] : 1.0f;
      y[static_cast<u64>(row) * p.n + col] = acc[r][c] * factor;
    }
  }
}

}  // namespace kernels
}  // namespace fovea
