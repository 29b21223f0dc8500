#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fovea {

/// Element type of a tensor in memory.
enum class DType : std::uint8_t {
  kF32,
  kBf16,
  kF16,
  kF8E4M3,  ///< e4m3fn: 4 exponent bits, 3 mantissa bits, no infinities, largest value 448
  kInt4,    ///< codes of 4 bits with scales (int4.h): a storage of matrices, not of elements
  kI32,
  kI8,
  kU8,
};

/// Bytes of one element; 0 for kInt4, which has no elements of their own.
constexpr std::size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBf16:
    case DType::kF16:
      return 2;
    case DType::kF8E4M3:
    case DType::kI8:
    case DType::kU8:
      return 1;
    case DType::kInt4:
      return 0;
  }
  return 0;
}

constexpr std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kBf16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kF8E4M3:
      return "f8e4m3";
    case DType::kInt4:
      return "int4";
    case DType::kI32:
      return "i32";
    case DType::kI8:
      return "i8";
    case DType::kU8:
      return "u8";
  }
  return "?";
}

}  // namespace fovea
