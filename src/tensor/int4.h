#pragma once

// Matrices in 4 bits. Each row falls into groups of 16 consecutive inputs; each group has a scale
// in 8 bits (e4m3, of either sign), each row a step, which is a power of two:
//
//   weight = code * scale * step, code -8 to 7; 4.5 bits a weight
//
// A code times a scale has 7 significant bits and is exact in bf16, and so is the whole weight:
// every device and every way to multiply sees the same numbers. Backends pack codes and scales in
// an order of their own; this header is what they have in common.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "tensor/half.h"

namespace fovea {

inline constexpr std::int64_t kInt4Group = 16;  ///< inputs that share a scale

/// Whether rows of this length can be stored in 4 bits.
constexpr bool fits_int4(std::int64_t cols) { return cols > 0 && cols % kInt4Group == 0; }

/// The step of a row: the least power of two with which a code of 7 reaches the largest magnitude
/// while scales stay at most 448. NaN for a row that is not finite: all its outputs are NaN.
inline float int4_row_step(std::span<const float> row) {
  float largest = 0;
  bool is_finite = true;
  for (const float value : row) {
    is_finite = is_finite && std::isfinite(value);
    largest = std::max(largest, std::fabs(value));
  }
  if (!is_finite) return std::numeric_limits<float>::quiet_NaN();
  constexpr float kReach = 7 * 448.0f;
  if (largest < kReach * std::numeric_limits<float>::min()) return 1;  // as good as zeros
  const int exponent = std::ilogb(largest / kReach);
  const float step = std::ldexp(1.0f, exponent);
  return step * kReach >= largest ? step : 2 * step;
}

/// The codes of a group, and the e4m3 bits of their scale.
struct Int4Group {
  std::array<std::int8_t, kInt4Group> codes;
  std::uint8_t scale;

  /// Element i, before the row's step.
  float value(std::int64_t i) const {
    return static_cast<float>(codes[static_cast<std::size_t>(i)]) * f8e4m3_to_f32(scale);
  }
};

namespace int4_detail {

using Values = std::array<float, kInt4Group>;

// The nearest codes, as floats. Adding and taking away 1.5 * 2^23 rounds to an integer, and unlike
// a call of the library it is vectorised.
inline Values nearest_codes(const Values& values, float inverse_scale) {
  constexpr float kRounder = 12582912.0f;
  Values codes;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const float bounded = std::min(std::max(values[i] * inverse_scale, -8.0f), 7.0f);
    codes[i] = (bounded + kRounder) - kRounder;
  }
  return codes;
}

inline float squared_error(const Values& values, const Values& codes, float scale) {
  Values error;
  for (std::size_t i = 0; i < error.size(); ++i) {
    const float difference = values[i] - codes[i] * scale;
    error[i] = difference * difference;
  }
  for (std::size_t width = error.size() / 2; width > 0; width /= 2) {
    for (std::size_t i = 0; i < width; ++i) error[i] += error[i + width];
  }
  return error[0];
}

}  // namespace int4_detail

/// The group whose scale makes the least squared error, of the e4m3 numbers around those with which
/// the largest element takes one of the outer codes, in both signs: -8 reaches further than 7.
/// group: 16 elements; step: of their row. Of a row that is not finite, zeros.
inline Int4Group quantise_int4(const float* group, float step) {
  Int4Group best{{}, 0};
  if (!(step > 0)) return best;
  int4_detail::Values values;
  const float inverse_step = 1 / step;  // exact
  float largest = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = group[i] * inverse_step;
    largest = std::max(largest, std::fabs(values[i]));
  }
  // The bits of a float 2^120 times too small are those of its e4m3 code and a remainder.
  const auto floor_code = std::bit_cast<std::uint32_t>(largest / 8 * 0x1p-120f) >> 20;
  constexpr std::uint32_t kTried = 6, kLargestCode = 0x7e;
  int4_detail::Values best_codes{};
  float least = std::numeric_limits<float>::infinity();
  for (std::uint32_t code = floor_code; code < floor_code + kTried; ++code) {
    if (code == 0 || code > kLargestCode) continue;
    const float magnitude = f8e4m3_to_f32(static_cast<std::uint8_t>(code));
    const float inverse = 1 / magnitude;
    for (const std::uint32_t sign : {0u, 0x80u}) {
      const float direction = sign == 0 ? 1.0f : -1.0f;
      const auto codes = int4_detail::nearest_codes(values, direction * inverse);
      const float error = int4_detail::squared_error(values, codes, direction * magnitude);
      if (error >= least) continue;
      least = error;
      best_codes = codes;
      best.scale = static_cast<std::uint8_t>(code | sign);
    }
  }
  for (std::size_t i = 0; i < best.codes.size(); ++i) {
    best.codes[i] = static_cast<std::int8_t>(best_codes[i]);
  }
  return best;
}

}  // namespace fovea
