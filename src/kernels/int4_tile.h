#pragma once

// Weights in 4 bits (tensor/int4.h) as they lie in the memory of a GPU. Also included by the code
// that packs them.

#include "common.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kInt4TileRows = 8;
constexpr GPU_CONST u32 kInt4TileDepth = 64;

/// 8 rows of a weight by 64 of their inputs; a matrix is [row tiles][depth tiles], filled up with
/// zeros. The order is that in which a warp feeds tensor cores: its lane 4 r + q has the inputs
/// 8 q to 8 q + 7 of both halves (32 inputs each) of row r, in two neighbouring words.
struct int4_tile {
  u32 codes[64];      ///< [row][quarter][half]: code + 8, the even inputs in the lower 16 bits
  f8e4m3 scales[32];  ///< [row][group of 16 inputs]
};

/// Where input `depth` of row `row` lies: the word of int4_tile::codes, and its lowest bit there.
GPU_FN u32 int4_word(u32 row, u32 depth) {
  return (row % kInt4TileRows * 4 + depth % 32 / 8) * 2 + depth % kInt4TileDepth / 32;
}
GPU_FN u32 int4_shift(u32 depth) { return depth % 8 / 2 * 4 + depth % 2 * 16; }

/// Tiles of a row of k inputs.
GPU_FN u32 int4_tiles(u32 k) { return (k + kInt4TileDepth - 1) / kInt4TileDepth; }

/// Element (row, depth) of a weight of k inputs, before the row's step.
GPU_FN float weight_at(const GPU_GLOBAL int4_tile* weight, u32 k, u32 row, u32 depth) {
  const GPU_GLOBAL int4_tile& tile =
      weight[static_cast<u64>(row / kInt4TileRows) * int4_tiles(k) + depth / kInt4TileDepth];
  const u32 code = (tile.codes[int4_word(row, depth)] >> int4_shift(depth)) & 15u;
  const f8e4m3 scale = tile.scales[row % kInt4TileRows * 4 + depth % kInt4TileDepth / 16];
  return (static_cast<float>(code) - 8.0f) * to_f32(scale);
}

/// The same of a weight that lies row by row.
template <class W>
GPU_FN float weight_at(const GPU_GLOBAL W* weight, u32 k, u32 row, u32 depth) {
  return to_f32(weight[static_cast<u64>(row) * k + depth]);
}

}  // namespace kernels
}  // namespace fovea
