#pragma once

#include <array>
#include <cstddef>

#include "fovea/image.h"

#include "image/crops.h"

namespace fovea {

/// SHA-256 of what the vision encoder makes of a picture: its pixels, its shape and how it is cut
/// up. The same picture from a PNG and from a WebP meets; equal bytes of another shape do not.
using ImageIdentity = std::array<std::byte, 32>;

ImageIdentity image_identity(const Image& image, const CropGeometry& geometry);

}  // namespace fovea
