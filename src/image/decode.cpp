#include "image/decode.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/try.h"
#include "image/decode_formats.h"
#include "image/exif.h"

namespace fovea {
namespace {

bool has_bytes_at(std::span<const std::byte> bytes, std::size_t offset, std::string_view wanted) {
  return bytes.size() >= offset + wanted.size() &&
         std::memcmp(bytes.data() + offset, wanted.data(), wanted.size()) == 0;
}

bool looks_like_text(std::span<const std::byte> bytes) {
  const auto head = bytes.first(std::min<std::size_t>(bytes.size(), 64));
  return std::all_of(head.begin(), head.end(), [](std::byte b) {
    const int c = std::to_integer<int>(b);
    return (c >= 32 && c < 127) || c == '\n' || c == '\r' || c == '\t' || c >= 0x80;
  });
}

Error unknown_format(std::span<const std::byte> bytes) {
  std::string head;
  for (const std::byte b : bytes.first(std::min<std::size_t>(bytes.size(), 8))) {
    head += fmt::format("{}{:02x}", head.empty() ? "" : " ", std::to_integer<int>(b));
  }
  return invalid_argument(
      "not a picture that can be decoded: it begins with bytes {}{}; accepted are JPEG, PNG, WebP "
      "and GIF",
      head, looks_like_text(bytes) ? ", which look like text" : "");
}

Result<DecodedPicture> decode_by_signature(std::span<const std::byte> bytes,
                                           const DecodeOptions& options) {
  if (has_bytes_at(bytes, 0, "\xff\xd8\xff")) return decode_jpeg(bytes, options);
  if (has_bytes_at(bytes, 0, "\x89PNG\r\n\x1a\n")) return decode_png(bytes, options);
  if (has_bytes_at(bytes, 0, "RIFF") && has_bytes_at(bytes, 8, "WEBP")) {
    return decode_webp(bytes, options);
  }
  if (has_bytes_at(bytes, 0, "GIF87a") || has_bytes_at(bytes, 0, "GIF89a")) {
    return decode_gif(bytes, options);
  }
  return unknown_format(bytes);
}

}  // namespace

Status check_picture_size(std::int64_t width, std::int64_t height, const DecodeOptions& options) {
  if (width <= 0 || height <= 0) {
    return invalid_argument("picture {}x{} has no pixels", width, height);
  }
  // Resizing takes scratch in proportion to a side, so a thin but endless picture is refused as
  // well.
  constexpr std::int64_t kMaxSide = 1'000'000;
  if (width > kMaxSide || height > kMaxSide) {
    return error(ErrorCode::kResourceExhausted, "picture {}x{} exceeds the largest side {}", width,
                 height, kMaxSide);
  }
  if (width * height > options.max_pixels) {
    return error(ErrorCode::kResourceExhausted, "picture {}x{} exceeds max_pixels {}", width,
                 height, options.max_pixels);
  }
  return {};
}

Image blank_image(std::int64_t width, std::int64_t height) {
  Image image;
  image.width = static_cast<int>(width);
  image.height = static_cast<int>(height);
  image.rgb.resize(3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
  return image;
}

Result<Image> decode_image(std::span<const std::byte> bytes, const DecodeOptions& options) {
  if (bytes.empty()) return invalid_argument("the picture is empty (0 bytes)");
  if (bytes.size() > options.max_bytes) {
    return error(ErrorCode::kResourceExhausted, "picture of {} bytes exceeds max_bytes {}",
                 bytes.size(), options.max_bytes);
  }
  FOVEA_TRY(DecodedPicture picture, decode_by_signature(bytes, options));
  if (!options.apply_exif) return std::move(picture.image);
  return apply_orientation(std::move(picture.image), picture.orientation);
}

}  // namespace fovea
