#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fovea/image.h"
#include "fovea/result.h"

#include "image/decode.h"

// One decoder per format, each in its own file. decode_image has checked the signature and the
// number of bytes.
namespace fovea {

/// A picture as stored, with the EXIF orientation (1..8) that would turn it upright.
struct DecodedPicture {
  Image image;
  int orientation = 1;
};

Result<DecodedPicture> decode_jpeg(std::span<const std::byte> bytes, const DecodeOptions& options);
Result<DecodedPicture> decode_png(std::span<const std::byte> bytes, const DecodeOptions& options);
Result<DecodedPicture> decode_webp(std::span<const std::byte> bytes, const DecodeOptions& options);
Result<DecodedPicture> decode_gif(std::span<const std::byte> bytes, const DecodeOptions& options);

/// Checks a size that a header claims against `options`. Errors: kInvalidArgument for an empty
/// picture, kResourceExhausted for too many pixels.
Status check_picture_size(std::int64_t width, std::int64_t height, const DecodeOptions& options);

/// A black picture; width and height have passed check_picture_size.
Image blank_image(std::int64_t width, std::int64_t height);

}  // namespace fovea
