// A line of the file of algorithms that were found to be the fastest. Whatever is accepted is
// written back as a line that means the same.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "backend/cuda/product_choices.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using fovea::cuda::ProductChoices;
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  const auto choice = ProductChoices::parse(line);
  if (!choice) return 0;
  std::string written = ProductChoices::to_line(*choice);
  FOVEA_CHECK(written.ends_with('\n'), "{}", written);
  written.pop_back();
  FOVEA_CHECK(ProductChoices::parse(written) == choice, "{}", written);
  return 0;
}
