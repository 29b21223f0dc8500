#include "engine/image_pipeline.h"

#include "base/error.h"
#include "base/try.h"
#include "image/decode.h"

namespace fovea {
namespace {

// Pixels that the caller made: sizes must agree before anybody reads them.
Status check_pixels(const Image& image, const PictureLimits& limits) {
  if (image.width <= 0 || image.height <= 0) {
    return invalid_argument("picture {}x{} is empty", image.width, image.height);
  }
  const std::int64_t pixels = std::int64_t{image.width} * image.height;
  if (pixels > limits.max_pixels) {
    return error(ErrorCode::kResourceExhausted, "picture {}x{} exceeds max_pixels {}", image.width,
                 image.height, limits.max_pixels);
  }
  if (image.rgb.size() != static_cast<std::size_t>(pixels) * 3) {
    return invalid_argument("picture {}x{} needs {} bytes of RGB; {} were given", image.width,
                            image.height, pixels * 3, image.rgb.size());
  }
  return {};
}

}  // namespace

Result<Crops> prepare_picture(const Picture& picture, const PictureLimits& limits, bool apply_exif,
                              const CropGeometry& geometry, ThreadPool& pool) {
  if (const auto* image = std::get_if<Image>(&picture)) {
    FOVEA_TRY_STATUS(check_pixels(*image, limits));
    return make_crops(*image, geometry, pool);
  }
  DecodeOptions options;
  options.max_bytes = limits.max_bytes;
  options.max_pixels = limits.max_pixels;
  options.apply_exif = apply_exif;
  FOVEA_TRY(const Image image, decode_image(std::get<std::vector<std::byte>>(picture), options));
  return make_crops(image, geometry, pool);
}

}  // namespace fovea
