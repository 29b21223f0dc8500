#pragma once

// Pages of keys and values of any type, as the tests of caches and of attention share them.

#include <cmath>
#include <cstring>

#include "conformance/conformance.h"
#include "tensor/half.h"

namespace fovea::conformance {

/// The largest code of pages of codes.
inline float largest_code(DType pages) { return pages == DType::kI8 ? 127.0f : 448.0f; }

/// The code nearest to x, as a number.
inline float nearest_code(DType pages, float x) {
  return pages == DType::kI8 ? std::nearbyint(x) : f8e4m3_to_f32(f32_to_f8e4m3(x));
}

/// K and V of one layer, with their scales where the type has them.
struct KvPool {
  Guarded k, v, k_scale, v_scale;

  KvPool(DType type, const HeadLayout& heads, std::int64_t num_pages)
      : k(type, {num_pages, heads.num_kv_heads, std::int64_t{heads.page_size} * heads.head_dim}),
        v(type, k.view().shape),
        k_scale(DType::kF32, {num_pages, heads.num_kv_heads, heads.page_size}),
        v_scale(DType::kF32, k_scale.view().shape) {}

  KvPages view() const {
    if (!is_coded(k.view().dtype)) return {k.view(), v.view()};
    return {k.view(), v.view(), k_scale.view(), v_scale.view()};
  }
  void check_guards() const {
    for (const Guarded* tensor : {&k, &v, &k_scale, &v_scale}) tensor->check_guards();
  }

  /// Fills K and V with numbers below 1; codes count 1 / 448 to 3 / 448 (of i8, 127) each.
  void fill(std::uint64_t seed) const {
    put(k.view(), random_floats(k.view().num_elements(), seed));
    put(v.view(), random_floats(v.view().num_elements(), seed + 1));
    for (const Guarded* scale : {&k_scale, &v_scale}) {
      const Floats noise = random_floats(scale->view().num_elements(), seed += 2);
      for (std::size_t i = 0; i < noise.size(); ++i) {
        scale->view().as<float>()[i] = (2 + noise[i]) / largest_code(k.view().dtype) / 3;
      }
    }
  }
  /// Becomes what `other`, of the same type and layout, is.
  void copy(const KvPool& other) const {
    for (Guarded KvPool::*part : {&KvPool::k, &KvPool::v, &KvPool::k_scale, &KvPool::v_scale}) {
      const TensorView from = (other.*part).view();
      std::memcpy((this->*part).view().data, from.data, from.size_bytes());
    }
  }
  /// The elements of K or V as what they count, in the order of a page that kernels for GPUs have.
  static Floats values(const Guarded& codes, const Guarded& scale, const HeadLayout& heads) {
    const TensorView view = codes.view();
    if (!is_coded(view.dtype)) return codes.floats();
    const auto count = static_cast<std::size_t>(view.num_elements());
    Floats values(count);
    const Floats scales = scale.floats();
    for (std::size_t i = 0; i < count; ++i) {
      const float code = view.dtype == DType::kI8 ? static_cast<float>(view.as<std::int8_t>()[i])
                                                  : f8e4m3_to_f32(view.as<std::uint8_t>()[i]);
      values[i] = code * scales[i / static_cast<std::size_t>(heads.head_dim)];
    }
    return values;
  }

 private:
  static void put(TensorView to, const Floats& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (to.dtype == DType::kF32) to.as<float>()[i] = values[i];
      if (to.dtype == DType::kBf16) to.as<std::uint16_t>()[i] = f32_to_bf16(values[i]);
      if (to.dtype == DType::kI8) {
        to.as<std::int8_t>()[i] = static_cast<std::int8_t>(std::nearbyint(127 * values[i]));
      }
      if (to.dtype == DType::kF8E4M3) to.as<std::uint8_t>()[i] = f32_to_f8e4m3(448 * values[i]);
    }
  }
};

}  // namespace fovea::conformance
