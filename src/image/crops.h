#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "fovea/image.h"
#include "fovea/result.h"

#include "base/thread_pool.h"

namespace fovea {

/// How a model wants its pictures cut up; the defaults are those of every published Moondream
/// model.
struct CropGeometry {
  int crop_size = 378;     ///< Side of a crop in pixels, a multiple of patch_size.
  int patch_size = 14;     ///< Side of a patch in pixels.
  int overlap_margin = 4;  ///< Patches at each border of a tile that its neighbours see as well.
  int max_crops = 12;      ///< Tiles aimed at; very long pictures get more.
};

/// A grid of tiles over the picture.
struct Tiling {
  int rows = 1;
  int cols = 1;
  friend bool operator==(const Tiling&, const Tiling&) = default;
};

/// The grid for a picture of this size: specification 3.3. `geometry` is valid (see make_crops).
Tiling choose_tiling(int height, int width, const CropGeometry& geometry);

/// The pictures that the vision encoder sees.
struct Crops {
  Tiling tiling;
  int crop_size = 0;
  /// [num_crops, crop_size, crop_size, 3]. Crop 0 is the whole picture; crop 1 + row * cols + col
  /// is that tile. A 1x1 tiling stores crop 0 only, because its single tile has the same pixels.
  std::vector<std::uint8_t> pixels;

  int num_tiles() const { return tiling.rows * tiling.cols; }
  int num_crops() const { return num_tiles() == 1 ? 1 : 1 + num_tiles(); }
};

/// Tiles beyond which make_crops refuses a picture, because each costs a pass of the vision
/// encoder. The default geometry gets there with a picture 400 pixels high and more than 180,000
/// wide.
inline constexpr int kMaxTiles = 64;

/// Cuts a picture up: the tiles from the picture resized to cover the grid, crop 0 from the
/// original resized to one crop; neither keeps the aspect ratio. Errors: kInvalidArgument for an
/// empty picture or a geometry whose margins leave no room inside a crop, kResourceExhausted beyond
/// kMaxTiles.
Result<Crops> make_crops(const Image& image, const CropGeometry& geometry, ThreadPool& pool);

}  // namespace fovea
