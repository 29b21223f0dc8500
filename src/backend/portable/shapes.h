#pragma once

#include <cstdint>

#include "backend/ops.h"
#include "base/check.h"
#include "kernels/kernel_id.h"

namespace fovea::portable {

/// A size as kernels count it.
inline std::uint32_t narrow(std::int64_t value) {
  FOVEA_CHECK(value >= 0 && value <= 0xffffffffll, "{} is no 32-bit size", value);
  return static_cast<std::uint32_t>(value);
}

/// The entry for activations of `dtype`.
inline kernels::KernelId pick(DType dtype, kernels::KernelId for_f32, kernels::KernelId for_bf16) {
  FOVEA_CHECK(dtype == DType::kF32 || dtype == DType::kBf16, "activations of {}",
              dtype_name(dtype));
  return dtype == DType::kF32 ? for_f32 : for_bf16;
}

/// Aborts unless the shapes of a product fit its weight.
void check_linear(const LinearArgs& args);

/// Aborts unless the table of angles and the places fit the rows.
void check_rope(TensorView rope, TensorView positions, TensorView slots, const HeadLayout& heads,
                TensorView qkv);

/// Aborts unless pages have a type that the kernels read, with the scales that belong to it.
void check_pages(const KvPages& pages, const HeadLayout& heads);

}  // namespace fovea::portable
