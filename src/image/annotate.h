#pragma once

#include <span>
#include <string>

#include "fovea/image.h"

namespace fovea {

/// Coordinates are fractions of the picture's width and height and may lie outside [0, 1]. Labels
/// are UTF-8; letters beyond Latin-1 are drawn as "?". An empty label draws no plate.
struct BoxMark {
  double x_min = 0;
  double y_min = 0;
  double x_max = 0;
  double y_max = 0;
  std::string label;
};
struct PointMark {
  double x = 0;
  double y = 0;
  std::string label;
};

/// Draws boxes and points onto the picture. Line width and letters grow with the picture; marks
/// with the same label share a colour, and labels stay inside the picture.
void annotate(Image& image, std::span<const BoxMark> boxes, std::span<const PointMark> points);

}  // namespace fovea
