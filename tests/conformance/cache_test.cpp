#include <algorithm>

#include "conformance/conformance.h"

namespace fovea::conformance {
namespace {

class Cache : public ConformanceTest {
 protected:
  static constexpr std::int64_t kPages = 7;

  // A pool of [kPages, heads, page_size * head_dim] per layer, K and V in turns.
  static std::vector<Guarded> pools(DType dtype, std::int64_t layers, Shape shape) {
    std::vector<Guarded> made;
    for (std::int64_t i = 0; i < 2 * layers; ++i) {
      const Floats values =
          random_floats(shape.num_elements(), 40 + static_cast<std::uint64_t>(i), 3);
      if (is_coded(dtype)) {
        Guarded codes(dtype, shape);
        for (std::size_t at = 0; at < values.size(); ++at) {
          codes.view().as<std::int8_t>()[at] = static_cast<std::int8_t>(40 * values[at]);
        }
        made.push_back(codes);
      } else {
        made.push_back(dtype == DType::kBf16 ? Guarded::bf16_of(values, shape)
                                             : Guarded::of(values, shape));
      }
    }
    return made;
  }

  static std::vector<std::byte> bytes_of(const Guarded& tensor) {
    const TensorView view = tensor.view();
    return {view.data, view.data + view.size_bytes()};
  }
};

TEST_P(Cache, CopiesWholePagesOfEveryLayerAndTouchesNoOther) {
  const Ints from = {5, 0, 5};
  const Ints to = {1, 6, 3};
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kI8, DType::kF8E4M3}) {
    for (const Shape& shape : {Shape{kPages, 1, 8 * 8}, Shape{kPages, 5, 16 * 72}}) {
      std::vector<Guarded> memory = pools(dtype, 3, shape);
      const Shape scale_shape{kPages, shape[1], 16};
      std::vector<KvPages> layers;
      std::vector<std::vector<std::byte>> before;
      for (std::size_t i = 0; i < memory.size(); i += 2) {
        layers.push_back({memory[i].view(), memory[i + 1].view()});
      }
      if (is_coded(dtype)) {
        for (std::size_t i = 0; i < layers.size(); ++i) {
          for (TensorView* scale : {&layers[i].k_scale, &layers[i].v_scale}) {
            memory.push_back(
                Guarded::of(random_floats(scale_shape.num_elements(), memory.size()), scale_shape));
            *scale = memory.back().view();
          }
        }
      }
      for (const Guarded& pool : memory) before.push_back(bytes_of(pool));
      ops().copy_pages(stream(), layers, from, to);
      ASSERT_TRUE(stream().synchronize().ok());
      for (std::size_t i = 0; i < memory.size(); ++i) {
        std::vector<std::byte> expected = before[i];
        const auto page = static_cast<std::ptrdiff_t>(expected.size()) / kPages;
        for (std::size_t p = 0; p < from.size(); ++p) {
          std::copy_n(before[i].begin() + from[p] * page, page, expected.begin() + to[p] * page);
        }
        EXPECT_EQ(bytes_of(memory[i]), expected) << "pool " << i;
        memory[i].check_guards();
      }
    }
  }
}

TEST_P(Cache, CopiesNothingWhenNothingIsAsked) {
  const std::vector<Guarded> memory = pools(DType::kF32, 1, {kPages, 2, 64});
  const std::vector<KvPages> layers = {{memory[0].view(), memory[1].view()}};
  const std::vector<std::byte> before = bytes_of(memory[0]);
  ops().copy_pages(stream(), layers, {}, {});
  ops().copy_pages(stream(), {}, Ints{0}, Ints{1});
  EXPECT_EQ(bytes_of(memory[0]), before);
}

FOVEA_CONFORMANCE(Cache);

}  // namespace
}  // namespace fovea::conformance
