#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/parallel_rows.h"
#include "base/check.h"
#include "base/math.h"

namespace fovea::cpu {

void CpuOps::patchify(Stream&, TensorView crops, TensorView pixel_values, int patch_size,
                      TensorView patches) {
  FOVEA_CHECK(crops.shape.rank() == 4 && crops.shape[1] == crops.shape[2] && crops.shape[3] == 3,
              "crops {}", crops.shape.to_string());
  FOVEA_CHECK(pixel_values.num_elements() == 256, "{} pixel values", pixel_values.num_elements());
  const std::int64_t side = crops.shape[1];
  const std::int64_t p = patch_size;
  const std::int64_t grid = side / p;
  FOVEA_CHECK(
      grid * p == side && patches.num_elements() == crops.shape[0] * grid * grid * 3 * p * p,
      "crops {}, patches {}", crops.shape.to_string(), patches.shape.to_string());
  const float* value = pixel_values.as<float>();
  const std::uint8_t* pixels = crops.as<std::uint8_t>();
  float* out = patches.as<float>();
  const std::int64_t count = crops.shape[0] * grid * grid;
  parallel_rows(pool_, count, 8 * 3 * p * p, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t patch = begin; patch < end; ++patch) {
      const std::int64_t row = patch / grid;  // of patches, over all crops: row * p is a pixel row
      const std::uint8_t* corner = pixels + (row * p * side + patch % grid * p) * 3;
      float* y = out + patch * 3 * p * p;
      for (std::int64_t c = 0; c < 3; ++c) {
        for (std::int64_t dy = 0; dy < p; ++dy) {
          const std::uint8_t* line = corner + dy * side * 3 + c;
          for (std::int64_t dx = 0; dx < p; ++dx) *y++ = value[line[3 * dx]];
        }
      }
    }
  });
}

namespace {

// Where rows (or columns) of the stitched map come from: tile i gives [19 i + first, 19 i + last)
// of its own 27, for the margin 4 and the grid 27 of the published models.
struct Stitch {
  std::int64_t grid;
  std::int64_t tiles;
  std::int64_t margin;

  std::int64_t inner() const { return grid - 2 * margin; }
  std::int64_t size() const { return inner() * tiles + 2 * margin; }
  // The tile that holds stitched index `at`; the outer margins belong to the outer tiles.
  std::int64_t tile(std::int64_t at) const {
    return std::clamp<std::int64_t>((at - margin) / inner(), 0, tiles - 1);
  }
  std::int64_t within(std::int64_t at) const { return at - tile(at) * inner(); }
};

struct Window {
  std::int64_t begin;
  std::int64_t end;
};

// The adaptive rule of pooling `size` to `cells`.
Window window_of(std::int64_t cell, std::int64_t size, std::int64_t cells) {
  return {cell * size / cells, ceil_div((cell + 1) * size, cells)};
}

}  // namespace

void CpuOps::stitch_and_pool(Stream&, TensorView features, int tile_rows, int tile_cols, int margin,
                             TensorView out) {
  FOVEA_CHECK(features.shape.rank() == 3, "features {}", features.shape.to_string());
  const std::int64_t cells = features.shape[1];
  const std::int64_t width = features.shape[2];
  std::int64_t grid = 1;
  while (grid * grid < cells) ++grid;
  const std::int64_t tiles = std::int64_t{tile_rows} * tile_cols;
  const std::int64_t first_tile = tiles == 1 ? 0 : 1;
  FOVEA_CHECK(grid * grid == cells && margin >= 0 && 2 * margin < grid, "grid of {}, margin {}",
              cells, margin);
  FOVEA_CHECK(tiles >= 1 && features.shape[0] == first_tile + tiles, "{} crops for {} x {} tiles",
              features.shape[0], tile_rows, tile_cols);
  FOVEA_CHECK(out.num_elements() == cells * 2 * width, "out {}", out.shape.to_string());
  const Stitch rows{grid, tile_rows, margin};
  const Stitch cols{grid, tile_cols, margin};
  const float* in = features.as<float>();
  const std::int64_t cost = 4 * width * tiles;
  parallel_rows(pool_, cells, cost, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t cell = begin; cell < end; ++cell) {
      float* y = out.as<float>() + cell * 2 * width;
      std::memcpy(y, in + cell * width, static_cast<std::size_t>(width) * sizeof(float));
      float* pooled = y + width;
      std::fill(pooled, pooled + width, 0.0f);
      const Window window_y = window_of(cell / grid, rows.size(), grid);
      const Window window_x = window_of(cell % grid, cols.size(), grid);
      for (std::int64_t r = window_y.begin; r < window_y.end; ++r) {
        for (std::int64_t c = window_x.begin; c < window_x.end; ++c) {
          const std::int64_t tile = first_tile + rows.tile(r) * tile_cols + cols.tile(c);
          const float* source =
              in + ((tile * grid + rows.within(r)) * grid + cols.within(c)) * width;
          kernels_.add_scaled(1.0f, source, pooled, width);
        }
      }
      const auto area =
          static_cast<float>((window_y.end - window_y.begin) * (window_x.end - window_x.begin));
      for (std::int64_t i = 0; i < width; ++i) pooled[i] /= area;
    }
  });
}

}  // namespace fovea::cpu
