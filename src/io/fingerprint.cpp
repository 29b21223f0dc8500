#include "io/fingerprint.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/sha256.h"

namespace fovea {
namespace {

constexpr std::size_t kSampleBytes = 512;  // at each end of a tensor

}  // namespace

std::string fingerprint(const Checkpoint& checkpoint) {
  Sha256 hash;
  for (const TensorEntry& tensor : checkpoint.tensors()) {
    hash.update(fmt::format("{}:{}:{};", tensor.name, static_cast<int>(tensor.dtype),
                            tensor.shape.num_elements()));
    const std::size_t sample = std::min(kSampleBytes, tensor.bytes.size());
    hash.update(tensor.bytes.first(sample)).update(tensor.bytes.last(sample));
  }
  std::string text;
  for (const std::byte byte : hash.finish()) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace fovea
