#include "image/identity.h"

#include <cstdint>

#include "base/sha256.h"

namespace fovea {

ImageIdentity image_identity(const Image& image, const CropGeometry& geometry) {
  const Tiling tiling = choose_tiling(image.height, image.width, geometry);
  // Fixed width and little endian, so that identities may be written down and compared across
  // machines.
  const std::int32_t head[] = {
      image.width, image.height, geometry.crop_size, geometry.patch_size, geometry.overlap_margin,
      tiling.rows, tiling.cols};
  std::array<std::byte, sizeof(head)> head_bytes;
  for (std::size_t i = 0; i < head_bytes.size(); ++i) {
    head_bytes[i] =
        static_cast<std::byte>(static_cast<std::uint32_t>(head[i / 4]) >> (8 * (i % 4)));
  }
  return Sha256().update(head_bytes).update(std::as_bytes(std::span(image.rgb))).finish();
}

}  // namespace fovea
