#pragma once

#include <cstdint>
#include <vector>

namespace fovea {

/// A decoded picture: 8-bit RGB, rows top to bottom, no padding; rgb.size() == 3 * width * height.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> rgb;
};

}  // namespace fovea
