#include "image/exif.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

namespace fovea {
namespace {

constexpr std::uint16_t kOrientationTag = 0x0112;

// Reads integers of either byte order; nothing when outside the block.
class TiffReader {
 public:
  TiffReader(std::span<const std::byte> bytes, bool big_endian)
      : bytes_(bytes), big_endian_(big_endian) {}

  std::optional<std::uint32_t> read(std::size_t offset, std::size_t num_bytes) const {
    if (offset > bytes_.size() || bytes_.size() - offset < num_bytes) return std::nullopt;
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < num_bytes; ++i) {
      const std::size_t at = offset + (big_endian_ ? i : num_bytes - 1 - i);
      value = (value << 8) | std::to_integer<std::uint32_t>(bytes_[at]);
    }
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  bool big_endian_;
};

// Bytes per value of the TIFF types that can hold an orientation; 0 for all others.
std::size_t integer_type_size(std::uint32_t type) {
  switch (type) {
    case 1:  // BYTE
    case 6:  // SBYTE
      return 1;
    case 3:  // SHORT
    case 8:  // SSHORT
      return 2;
    case 4:  // LONG
    case 9:  // SLONG
      return 4;
    default:
      return 0;
  }
}

int orientation_of_directory(const TiffReader& reader, std::size_t directory) {
  const auto num_entries = reader.read(directory, 2);
  if (!num_entries) return 1;
  for (std::uint32_t i = 0; i < *num_entries; ++i) {
    const std::size_t entry = directory + 2 + 12 * std::size_t{i};
    const auto tag = reader.read(entry, 2);
    const auto type = reader.read(entry + 2, 2);
    const auto count = reader.read(entry + 4, 4);
    if (!tag || !type || !count) return 1;
    if (*tag != kOrientationTag) continue;
    const std::size_t size = integer_type_size(*type);
    if (size == 0 || *count != 1) return 1;
    const auto value = reader.read(entry + 8, size);
    return value && *value >= 1 && *value <= 8 ? static_cast<int>(*value) : 1;
  }
  return 1;
}

}  // namespace

int exif_orientation(std::span<const std::byte> exif) {
  constexpr char kPrefix[6] = {'E', 'x', 'i', 'f', 0, 0};
  if (exif.size() >= sizeof(kPrefix) && std::memcmp(exif.data(), kPrefix, sizeof(kPrefix)) == 0) {
    exif = exif.subspan(sizeof(kPrefix));
  }
  if (exif.size() < 8) return 1;
  const bool little_endian = std::memcmp(exif.data(), "II*\0", 4) == 0;
  const bool big_endian = std::memcmp(exif.data(), "MM\0*", 4) == 0;
  if (!little_endian && !big_endian) return 1;
  const TiffReader reader(exif, big_endian);
  return orientation_of_directory(reader, *reader.read(4, 4));
}

Image apply_orientation(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const bool swaps = orientation >= 5;
  // Does stepping right (down) in the upright picture walk backwards through the stored one? In the
  // swapped cases a step right walks along the stored rows' vertical direction.
  const bool x_backwards =
      orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  const bool y_backwards =
      orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;

  Image upright;
  upright.width = swaps ? image.height : image.width;
  upright.height = swaps ? image.width : image.height;
  upright.rgb.resize(image.rgb.size());
  const std::ptrdiff_t row_bytes = 3 * std::ptrdiff_t{image.width};
  const std::ptrdiff_t x_step = (swaps ? row_bytes : 3) * (x_backwards ? -1 : 1);
  const std::ptrdiff_t y_step = (swaps ? 3 : row_bytes) * (y_backwards ? -1 : 1);
  const std::ptrdiff_t origin = (x_backwards ? -x_step * (upright.width - 1) : 0) +
                                (y_backwards ? -y_step * (upright.height - 1) : 0);

  // Square blocks: a swapped read walks down columns, and a whole column of a large picture does
  // not fit the cache.
  constexpr int kBlock = 64;
  for (int y_begin = 0; y_begin < upright.height; y_begin += kBlock) {
    for (int x_begin = 0; x_begin < upright.width; x_begin += kBlock) {
      const int y_end = std::min(y_begin + kBlock, upright.height);
      const int x_end = std::min(x_begin + kBlock, upright.width);
      for (int y = y_begin; y < y_end; ++y) {
        const std::uint8_t* from = image.rgb.data() + origin + y * y_step + x_begin * x_step;
        std::uint8_t* to = upright.rgb.data() + 3 * (std::ptrdiff_t{y} * upright.width + x_begin);
        for (int x = x_begin; x < x_end; ++x, from += x_step, to += 3) {
          to[0] = from[0];
          to[1] = from[1];
          to[2] = from[2];
        }
      }
    }
  }
  return upright;
}

}  // namespace fovea
