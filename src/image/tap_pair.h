#pragma once

#include <cstdint>

// Plain data only: translation units for one instruction set include this.
namespace fovea {

/// Fraction bits of a resize weight.
inline constexpr int kWeightBits = 22;

/// Two neighbouring taps of an output position, the unit in which the row kernels consume weights.
/// `weight` holds them whole; `low` and `high` the same as 16 + 8 bits: weight == high * 65536 +
/// low.
struct TapPair {
  std::int32_t weight[2];
  std::int16_t low[2];
  std::int8_t high[2];
  std::int8_t unused[2];
};

}  // namespace fovea
