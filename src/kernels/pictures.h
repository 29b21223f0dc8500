#pragma once

// Crops to patches, and the features of a picture's tiles to one map.

#include "common.h"

namespace fovea {
namespace kernels {

struct PatchifyParams {
  u32 side;   // pixels of a crop
  u32 patch;  // pixels of a patch
  u32 pad0_, pad1_;
};

// crops u8 [n, side, side, 3] -> patches [n * grid^2, 3 * patch^2], ordered channel, row, column.
// One block for each patch.
template <class T>
GPU_FN void patchify(Thread t, const GPU_CONST PatchifyParams& p, const GPU_GLOBAL u8* crops,
                     const GPU_GLOBAL float* pixel_values, GPU_GLOBAL T* patches,
                     GPU_SHARED char*) {
  const u32 grid = p.side / p.patch;
  const u32 row = t.block.x / grid;  // of patches, over all crops: row * patch is a pixel row
  const u32 col = t.block.x % grid;
  const u32 area = p.patch * p.patch;
  const GPU_GLOBAL u8* corner =
      crops + (static_cast<u64>(row) * p.patch * p.side + col * p.patch) * 3;
  GPU_GLOBAL T* out = patches + static_cast<u64>(t.block.x) * 3 * area;
  for (u32 i = t.index; i < 3 * area; i += t.num_warps * kWarpSize) {
    const u32 channel = i / area;
    const u32 y = i % area / p.patch;
    const u32 x = i % p.patch;
    out[i] = from_f32<T>(pixel_values[corner[(y * p.side + x) * 3 + channel]]);
  }
}

struct StitchParams {
  u32 grid;   // patches of a crop
  u32 width;  // of a feature
  u32 tile_rows;
  u32 tile_cols;
  u32 margin;  // patches that neighbouring tiles share
  u32 pad0_, pad1_, pad2_;
};

// Where index `at` of the stitched map lies: the tile, and the place within it. Inner margins are
// dropped, outer margins belong to the outer tiles.
GPU_FN u32 stitched_tile(u32 at, u32 grid, u32 tiles, u32 margin) {
  const u32 inner = grid - 2 * margin;
  const u32 tile = at < margin ? 0 : (at - margin) / inner;
  return tile < tiles ? tile : tiles - 1;
}

// out[cell] = the global crop's feature, then the mean of the stitched tiles' features that the
// cell covers: [floor(i n / grid), ceil((i + 1) n / grid)). One block for each cell.
template <class T>
GPU_FN void stitch_and_pool(Thread t, const GPU_CONST StitchParams& p, const GPU_GLOBAL T* features,
                            GPU_GLOBAL T* out, GPU_SHARED char*) {
  const u32 cell_y = t.block.x / p.grid;
  const u32 cell_x = t.block.x % p.grid;
  const u32 inner = p.grid - 2 * p.margin;
  const u32 rows = inner * p.tile_rows + 2 * p.margin;
  const u32 cols = inner * p.tile_cols + 2 * p.margin;
  const u32 first_tile = p.tile_rows * p.tile_cols == 1 ? 0 : 1;
  const u32 y_begin = cell_y * rows / p.grid;
  const u32 y_end = ((cell_y + 1) * rows + p.grid - 1) / p.grid;
  const u32 x_begin = cell_x * cols / p.grid;
  const u32 x_end = ((cell_x + 1) * cols + p.grid - 1) / p.grid;
  const float area = static_cast<float>((y_end - y_begin) * (x_end - x_begin));
  GPU_GLOBAL T* y = out + static_cast<u64>(t.block.x) * 2 * p.width;
  for (u32 i = t.index; i < p.width; i += t.num_warps * kWarpSize) {
    y[i] = features[static_cast<u64>(t.block.x) * p.width + i];
    float sum = 0;
    for (u32 r = y_begin; r < y_end; ++r) {
      const u32 tile_y = stitched_tile(r, p.grid, p.tile_rows, p.margin);
      for (u32 c = x_begin; c < x_end; ++c) {
        const u32 tile_x = stitched_tile(c, p.grid, p.tile_cols, p.margin);
        const u32 tile = first_tile + tile_y * p.tile_cols + tile_x;
        const u32 place = (tile * p.grid + (r - tile_y * inner)) * p.grid + (c - tile_x * inner);
        sum += to_f32(features[static_cast<u64>(place) * p.width + i]);
      }
    }
    y[p.width + i] = from_f32<T>(sum / area);
  }
}

}  // namespace kernels
}  // namespace fovea
