#include "fovea/picture.h"

#include "image/annotate.h"
#include "image/decode.h"
#include "image/encode_png.h"

namespace fovea {

Result<Image> decode_picture(std::span<const std::byte> bytes, const PictureLimits& limits,
                             bool apply_exif) {
  DecodeOptions options;
  options.max_bytes = limits.max_bytes;
  options.max_pixels = limits.max_pixels;
  options.apply_exif = apply_exif;
  return decode_image(bytes, options);
}

void draw_labels(Image& image, std::span<const BoxLabel> boxes,
                 std::span<const PointLabel> points) {
  std::vector<BoxMark> box_marks;
  for (const BoxLabel& box : boxes)
    box_marks.push_back({box.x_min, box.y_min, box.x_max, box.y_max, box.label});
  std::vector<PointMark> point_marks;
  for (const PointLabel& point : points) point_marks.push_back({point.x, point.y, point.label});
  annotate(image, box_marks, point_marks);
}

}  // namespace fovea
