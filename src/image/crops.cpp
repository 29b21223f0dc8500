#include "image/crops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/try.h"
#include "image/resize.h"

namespace fovea {
namespace {

int both_margins(const CropGeometry& geometry) {
  return 2 * geometry.overlap_margin * geometry.patch_size;
}

// Pixels from one tile to the next.
int window(const CropGeometry& geometry) { return geometry.crop_size - both_margins(geometry); }

Status check(const Image& image, const CropGeometry& geometry) {
  if (image.width <= 0 || image.height <= 0) {
    return invalid_argument("picture {}x{} has no pixels", image.width, image.height);
  }
  constexpr int kMaxCropSize = 1 << 14;
  const bool valid =
      geometry.patch_size > 0 && geometry.crop_size > 0 && geometry.crop_size <= kMaxCropSize &&
      geometry.crop_size % geometry.patch_size == 0 && geometry.overlap_margin >= 0 &&
      geometry.overlap_margin <= kMaxCropSize && geometry.max_crops > 0 &&
      geometry.patch_size <= geometry.crop_size &&
      2 * std::int64_t{geometry.overlap_margin} * geometry.patch_size < geometry.crop_size;
  if (!valid) {
    return invalid_argument(
        "crop geometry does not work: crop_size {}, patch_size {}, overlap_margin {}, max_crops {}",
        geometry.crop_size, geometry.patch_size, geometry.overlap_margin, geometry.max_crops);
  }
  return {};
}

int floor_to_int(double value) { return static_cast<int>(std::floor(value)); }

}  // namespace

// Names after specification 3.3, which evaluates everything in float64 from left to right.
Tiling choose_tiling(int height, int width, const CropGeometry& geometry) {
  const int h = height - both_margins(geometry);
  const int w = width - both_margins(geometry);
  const int c = window(geometry);
  const double m = geometry.max_crops;
  if (h <= c || w <= c) return {1, 1};
  const int a = static_cast<int>(std::ceil(static_cast<double>(h) / c));
  const int b = static_cast<int>(std::ceil(static_cast<double>(w) / c));
  const std::int64_t product = std::int64_t{a} * b;
  if (product > geometry.max_crops) {
    const double r = std::sqrt(m / static_cast<double>(product));
    return {std::max(1, floor_to_int(a * r)), std::max(1, floor_to_int(b * r))};
  }
  int p = std::max(floor_to_int(std::sqrt(m * h / w)), a);
  int q = std::max(floor_to_int(std::sqrt(m * w / h)), b);
  if (p * q > geometry.max_crops) {
    if (q > p) {
      q = geometry.max_crops / p;
    } else {
      p = geometry.max_crops / q;
    }
  }
  return {std::max(1, p), std::max(1, q)};
}

Result<Crops> make_crops(const Image& image, const CropGeometry& geometry, ThreadPool& pool) {
  FOVEA_TRY_STATUS(check(image, geometry));
  Crops crops;
  crops.crop_size = geometry.crop_size;
  crops.tiling = choose_tiling(image.height, image.width, geometry);
  if (std::int64_t{crops.tiling.rows} * crops.tiling.cols > kMaxTiles) {
    return error(ErrorCode::kResourceExhausted,
                 "picture {}x{} needs {}x{} tiles, which exceeds the limit of {}", image.width,
                 image.height, crops.tiling.rows, crops.tiling.cols, kMaxTiles);
  }
  const int size = geometry.crop_size;
  const std::size_t row_bytes = 3 * static_cast<std::size_t>(size);
  const std::size_t crop_bytes = row_bytes * static_cast<std::size_t>(size);
  crops.pixels.resize(crop_bytes * static_cast<std::size_t>(crops.num_crops()));

  std::uint8_t* global = crops.pixels.data();
  resize_lanczos_rows(image, size, size, pool, [&](int y, const std::uint8_t* row) {
    std::memcpy(global + static_cast<std::size_t>(y) * row_bytes, row, row_bytes);
  });
  if (crops.num_tiles() == 1) return crops;

  const int step = window(geometry);
  const Tiling grid = crops.tiling;
  const int width = grid.cols * step + both_margins(geometry);
  const int height = grid.rows * step + both_margins(geometry);
  std::uint8_t* tiles = global + crop_bytes;
  // A finished row goes straight to every tile that shows it: tile row i covers rows [i * step, i *
  // step + size).
  resize_lanczos_rows(image, width, height, pool, [&](int y, const std::uint8_t* row) {
    const int first_row = y < size ? 0 : (y - size) / step + 1;
    const int last_row = std::min(y / step, grid.rows - 1);
    for (int i = first_row; i <= last_row; ++i) {
      for (int j = 0; j < grid.cols; ++j) {
        std::uint8_t* tile = tiles + static_cast<std::size_t>(i * grid.cols + j) * crop_bytes;
        std::memcpy(tile + static_cast<std::size_t>(y - i * step) * row_bytes,
                    row + 3 * std::ptrdiff_t{j} * step, row_bytes);
      }
    }
  });
  return crops;
}

}  // namespace fovea
