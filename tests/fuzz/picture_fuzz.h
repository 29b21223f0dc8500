#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "image/decode.h"
#include "image/decode_formats.h"
#include "image/exif.h"

namespace fovea::fuzz {

/// Runs one format's decoder, past the sniffing that would turn most mutations away, and turns the
/// result upright. Limits are tight, so that time goes into parsing and not into large pictures.
inline void decode_as(Result<DecodedPicture> (*decode)(std::span<const std::byte>,
                                                       const DecodeOptions&),
                      const std::uint8_t* data, std::size_t size) {
  DecodeOptions options;
  options.max_pixels = 1 << 18;
  options.max_progressive_scans = 16;
  auto picture = decode(std::as_bytes(std::span(data, size)), options);
  if (!picture.ok()) {
    if (picture.error().message.empty()) std::abort();
    return;
  }
  const Image image = apply_orientation(std::move(picture->image), picture->orientation);
  if (image.width <= 0 || image.height <= 0) std::abort();
  const auto pixels =
      static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height);
  if (pixels > std::size_t{1} << 18 || image.rgb.size() != 3 * pixels) std::abort();
}

}  // namespace fovea::fuzz
