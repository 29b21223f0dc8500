#pragma once

#include <concepts>
#include <cstddef>
#include <limits>
#include <optional>

namespace fovea {

template <std::integral T>
constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

template <std::integral T>
constexpr T round_up(T value, T multiple) {
  return ceil_div(value, multiple) * multiple;
}

/// a * b, or nothing when it does not fit: for sizes that come from outside.
constexpr std::optional<std::size_t> checked_mul(std::size_t a, std::size_t b) {
  if (b != 0 && a > std::numeric_limits<std::size_t>::max() / b) return std::nullopt;
  return a * b;
}

}  // namespace fovea
