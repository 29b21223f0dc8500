#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fovea/image.h"
#include "fovea/result.h"

namespace fovea {

/// What decode_image accepts and does. All limits are checked before memory for pixels is taken.
struct DecodeOptions {
  std::size_t max_bytes = std::size_t{64} << 20;  ///< Of the encoded picture.
  std::int64_t max_pixels = 100'000'000;          ///< Width times height that the header claims.
  /// Scans of a progressive JPEG. Encoders write about 10; each further scan costs a pass over all
  /// coefficients, so a small file with thousands of scans could keep a processor busy for minutes.
  int max_progressive_scans = 64;
  /// Turn the picture upright as its EXIF orientation says.
  bool apply_exif = true;
};

/// Decodes a JPEG, PNG, WebP or GIF picture (first frame), told apart by their first bytes, to the
/// pixels of Pillow's `Image.open(...).convert("RGB")`: alpha is dropped, not blended; colour
/// profiles and gamma are ignored. Thread-safe. Errors: kInvalidArgument (empty, unknown format,
/// damaged or truncated), kResourceExhausted (a limit of `options`).
Result<Image> decode_image(std::span<const std::byte> bytes, const DecodeOptions& options);

}  // namespace fovea
