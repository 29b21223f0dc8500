#include "engine/picture_identifier.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/try.h"
#include "image/decode.h"

namespace fovea {
namespace {

constexpr std::size_t kMaxKnownFiles = 4096;  // about a megabyte

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

PictureIdentifier::PictureIdentifier(const PictureLimits& limits, const CropGeometry& geometry)
    : limits_(limits), geometry_(geometry) {
  // The hash library sets itself up when it is first used and cleans up at the exit of the process.
  // Used here first, it does so after an engine that lives as long as the process, not before it.
  Sha256().finish();
}

Result<std::shared_ptr<const Image>> PictureIdentifier::pixels(const Picture& picture,
                                                               bool apply_exif) const {
  if (std::shared_ptr<const Image> image = picture.image()) {
    FOVEA_TRY_STATUS(check_pixels(*image, limits_));
    return image;
  }
  DecodeOptions options;
  options.max_bytes = limits_.max_bytes;
  options.max_pixels = limits_.max_pixels;
  options.apply_exif = apply_exif;
  FOVEA_TRY(Image image, decode_image(*picture.file(), options));
  return std::make_shared<const Image>(std::move(image));
}

Result<IdentifiedPicture> PictureIdentifier::identify(const Picture& picture, bool apply_exif) {
  const double started_ms = now_ms();
  IdentifiedPicture result;
  std::optional<FileKey> key;
  if (picture.file() != nullptr && picture.file()->size() <= limits_.max_bytes) {
    key.emplace(Sha256().update(*picture.file()).finish(), apply_exif);
    const std::lock_guard lock(mutex_);
    if (const auto known = known_.find(*key); known != known_.end()) {
      by_use_.splice(by_use_.begin(), by_use_, known->second.use);
      result.identity = known->second.identity;
      result.worked_ms = now_ms() - started_ms;
      return result;
    }
  }
  FOVEA_TRY(result.pixels, pixels(picture, apply_exif));
  result.identity = image_identity(*result.pixels, geometry_);
  if (key) {
    const std::lock_guard lock(mutex_);
    if (!known_.contains(*key)) {
      by_use_.push_front(*key);
      known_.emplace(*key, Known{result.identity, by_use_.begin()});
      if (known_.size() > kMaxKnownFiles) {
        known_.erase(by_use_.back());
        by_use_.pop_back();
      }
    }
  }
  result.worked_ms = now_ms() - started_ms;
  return result;
}

}  // namespace fovea
