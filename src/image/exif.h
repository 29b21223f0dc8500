#pragma once

#include <cstddef>
#include <span>

#include "fovea/image.h"

namespace fovea {

/// The orientation tag (0x0112) of an EXIF block: a TIFF structure, with or without the "Exif\0\0"
/// that JPEG puts before it. 1 (upright) when the tag is missing, out of 1..8, or the block is
/// damaged.
int exif_orientation(std::span<const std::byte> exif);

/// Turns a stored picture upright. Orientations 2, 4, 5 and 7 mirror; 5 to 8 swap width and height.
/// 1 and unknown values return the picture unchanged.
Image apply_orientation(Image image, int orientation);

}  // namespace fovea
