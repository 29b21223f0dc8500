// A file of stored embeddings from outside: as it comes, and with the key and the checksum put
// right, so that the sizes in its header are reached. What parses is written back to the same
// bytes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "engine/image_file.h"

namespace {

void check(const std::vector<std::byte>& file, const fovea::ImageFileKey& key) {
  const auto embeddings = fovea::parse_image_file(file, key);
  if (!embeddings) return;
  const auto written = fovea::write_image_file(key, *embeddings);
  FOVEA_CHECK(written.ok() && *written == file, "what parsed is not written back");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fovea::ImageFileKey key{};
  std::vector<std::byte> file(size);
  std::transform(data, data + size, file.begin(),
                 [](std::uint8_t byte) { return std::byte{byte}; });
  check(file, key);
  if (size < fovea::kImageFileOverhead) return 0;
  std::fill(file.begin() + 32, file.begin() + 96, std::byte{0});
  const std::span<const std::byte> hashed(file.data(), size - 32);
  const fovea::Sha256Digest digest = fovea::Sha256().update(hashed).finish();
  std::copy(digest.begin(), digest.end(), file.end() - 32);
  check(file, key);
  return 0;
}
