#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "fovea/image.h"
#include "fovea/options.h"
#include "fovea/result.h"

namespace fovea {

/// Decodes a JPEG, PNG, WebP or GIF (first frame) file. Errors: kInvalidArgument for bytes that are
/// no such picture, kResourceExhausted beyond a limit; the message says what was found.
Result<Image> decode_picture(std::span<const std::byte> bytes, const PictureLimits& limits,
                             bool apply_exif);

/// A box or point to draw, in fractions of the picture, with its label.
struct BoxLabel {
  double x_min = 0, y_min = 0, x_max = 0, y_max = 0;
  std::string label;
};
struct PointLabel {
  double x = 0, y = 0;
  std::string label;
};

/// Draws boxes and points with labels onto the picture.
void draw_labels(Image& image, std::span<const BoxLabel> boxes, std::span<const PointLabel> points);

/// The picture as the bytes of a PNG file.
Result<std::vector<std::byte>> encode_png(const Image& image);

}  // namespace fovea
