// A whole safetensors file from outside. What parses must lie inside it, and its sizes must agree.

#include <cstddef>
#include <cstdint>

#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const auto tensors = fovea::parse_safetensors(file, "input");
  if (!tensors.ok()) return 0;
  std::size_t total = 0;
  for (const fovea::TensorEntry& tensor : *tensors) {
    const auto elements = static_cast<std::size_t>(tensor.shape.num_elements());
    FOVEA_CHECK(tensor.bytes.size() == elements * fovea::dtype_size(tensor.dtype), "{}",
                tensor.name);
    if (tensor.bytes.empty()) continue;
    FOVEA_CHECK(tensor.bytes.data() >= file.data() &&
                    tensor.bytes.data() + tensor.bytes.size() <= file.data() + file.size(),
                "{}", tensor.name);
    total += tensor.bytes.size();
  }
  FOVEA_CHECK(total <= size, "{} bytes of tensors in {}", total, size);
  return 0;
}
