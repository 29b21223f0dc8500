// Pictures of any shape, geometries of any kind: make_crops must answer with crops of the promised
// number or an error, and a resized row must equal one computed the slow way.
#include <cstdlib>
#include <cstring>

#include "image/crops.h"
#include "image/lanczos.h"
#include "image/resize.h"

namespace {

// Reads the fuzzer's bytes as numbers; zero when they run out.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  int number(int limit) {
    std::uint16_t value = 0;
    const std::size_t count = size_ < 2 ? size_ : 2;
    std::memcpy(&value, data_, count);
    data_ += count;
    size_ -= count;
    return value % limit;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

fovea::Image noise(int width, int height, std::uint32_t seed) {
  fovea::Image image{width, height, {}};
  image.rgb.resize(3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
  for (auto& byte : image.rgb) {
    seed = seed * 1664525u + 1013904223u;
    byte = static_cast<std::uint8_t>(seed >> 24);
  }
  return image;
}

std::uint8_t weigh(const fovea::PassWeights& pass, int output, const std::uint8_t* first,
                   std::ptrdiff_t stride) {
  const auto index = static_cast<std::size_t>(output);
  std::int64_t sum = 1 << 21;
  for (int i = 0; i < pass.num_taps[index]; ++i) {
    sum += std::int64_t{pass.pairs_of(output)[i / 2].weight[i % 2]} *
           first[(pass.first[index] + i) * stride];
  }
  sum >>= 22;
  return static_cast<std::uint8_t>(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

void check_resize(const fovea::Image& image, int width, int height, fovea::ThreadPool& pool) {
  const fovea::Image resized = fovea::resize_lanczos(image, width, height, pool);
  if (resized.rgb.size() != 3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height))
    std::abort();
  if (width == image.width) return;
  // A width-only resize, so that one pass can be checked on its own.
  const fovea::Image narrowed = fovea::resize_lanczos(image, width, image.height, pool);
  const fovea::PassWeights pass = fovea::lanczos_weights(image.width, width);
  const int y = image.height / 2;
  for (int x = 0; x < width; ++x) {
    const std::uint8_t* row = image.rgb.data() + 3 * std::ptrdiff_t{y} * image.width;
    if (weigh(pass, x, row, 3) !=
        narrowed.rgb[3 * (static_cast<std::size_t>(y) * static_cast<std::size_t>(width) +
                          static_cast<std::size_t>(x))])
      std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  static fovea::ThreadPool pool(1);
  const int width = input.number(3000);
  const int height = input.number(width > 300 ? 100 : 1000);
  fovea::CropGeometry geometry;
  geometry.patch_size = input.number(20);
  geometry.crop_size = geometry.patch_size * input.number(30);
  geometry.overlap_margin = input.number(8);
  geometry.max_crops = input.number(20);
  const fovea::Image image = noise(width, height, static_cast<std::uint32_t>(input.number(65535)));
  const auto crops = fovea::make_crops(image, geometry, pool);
  if (crops.ok()) {
    const auto side = static_cast<std::size_t>(geometry.crop_size);
    if (crops->pixels.size() != static_cast<std::size_t>(crops->num_crops()) * side * side * 3)
      std::abort();
  }
  if (width > 0 && height > 0) {
    check_resize(image, 1 + input.number(500), 1 + input.number(100), pool);
  }
  return 0;
}
