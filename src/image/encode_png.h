#pragma once

#include <cstddef>
#include <vector>

#include "fovea/image.h"
#include "fovea/result.h"

namespace fovea {

/// The picture as a PNG file in memory, 8-bit RGB, fast compression. Errors: kInvalidArgument for
/// an empty picture, kInternal when libpng fails.
Result<std::vector<std::byte>> encode_png(const Image& image);

}  // namespace fovea
