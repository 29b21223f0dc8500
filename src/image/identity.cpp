#include "image/identity.h"

#include <cstdint>
#include <memory>
#include <openssl/evp.h>

#include "base/check.h"

namespace fovea {

ImageIdentity image_identity(const Image& image, const CropGeometry& geometry) {
  const Tiling tiling = choose_tiling(image.height, image.width, geometry);
  // Fixed width and little endian, so that identities may be written down and compared across
  // machines.
  const std::int32_t head[] = {
      image.width, image.height, geometry.crop_size, geometry.patch_size, geometry.overlap_margin,
      tiling.rows, tiling.cols};
  std::array<unsigned char, sizeof(head)> head_bytes;
  for (std::size_t i = 0; i < head_bytes.size(); ++i) {
    head_bytes[i] =
        static_cast<unsigned char>(static_cast<std::uint32_t>(head[i / 4]) >> (8 * (i % 4)));
  }

  ImageIdentity identity;
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(),
                                                                   EVP_MD_CTX_free);
  const bool hashed =
      context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1 &&
      EVP_DigestUpdate(context.get(), head_bytes.data(), head_bytes.size()) == 1 &&
      EVP_DigestUpdate(context.get(), image.rgb.data(), image.rgb.size()) == 1 &&
      EVP_DigestFinal_ex(context.get(), reinterpret_cast<unsigned char*>(identity.data()),
                         nullptr) == 1;
  FOVEA_CHECK(hashed, "SHA-256 is not available in libcrypto");
  return identity;
}

}  // namespace fovea
