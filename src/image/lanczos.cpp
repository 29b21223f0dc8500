#include "image/lanczos.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace fovea {
namespace {

constexpr double kRadius = 3.0;

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos(double x) {
  if (x < -kRadius || x >= kRadius) return 0.0;
  return sinc(x) * sinc(x / kRadius);
}

std::int32_t to_fixed(double weight) {
  const double scaled = weight * (1 << kWeightBits);
  return static_cast<std::int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

void set_tap(TapPair& pair, int index, std::int32_t weight) {
  // Rounding the high part leaves a low part that fits a signed 16-bit number. No weight
  // reaches 2.0 (the largest, next to an edge, is 1.29), so the high part stays within 8 bits, and
  // so does the sum of two.
  const std::int32_t high = (weight + 0x8000) >> 16;
  pair.weight[index] = weight;
  pair.high[index] = static_cast<std::int8_t>(high);
  pair.low[index] = static_cast<std::int16_t>(weight - (high << 16));
}

}  // namespace

// The order of the floating-point operations is part of the result: the weights must round as
// Pillow's do.
PassWeights lanczos_weights(int in_size, int out_size) {
  const double scale = static_cast<double>(in_size) / out_size;
  const double filter_scale = std::max(scale, 1.0);
  const double support = kRadius * filter_scale;
  const double inverse = 1.0 / filter_scale;

  PassWeights pass;
  pass.num_outputs = out_size;
  pass.max_pairs = (std::min(static_cast<int>(std::ceil(support)) * 2 + 1, in_size) + 1) / 2;
  pass.pairs.resize(static_cast<std::size_t>(out_size) * static_cast<std::size_t>(pass.max_pairs));
  pass.first.reserve(static_cast<std::size_t>(out_size));
  pass.num_taps.reserve(static_cast<std::size_t>(out_size));

  std::vector<double> row(2 * static_cast<std::size_t>(pass.max_pairs));
  TapPair* pairs = pass.pairs.data();
  for (int out = 0; out < out_size; ++out, pairs += pass.max_pairs) {
    const double center = (out + 0.5) * scale;
    const int begin = std::max(static_cast<int>(std::floor(center - support + 0.5)), 0);
    const int end = std::min(static_cast<int>(std::floor(center + support + 0.5)), in_size);
    double sum = 0.0;
    for (int i = begin; i < end; ++i) {
      const double weight = lanczos((i - center + 0.5) * inverse);
      row[static_cast<std::size_t>(i - begin)] = weight;
      sum += weight;
    }
    for (int i = 0; i < end - begin; ++i) {
      const double weight = row[static_cast<std::size_t>(i)];
      set_tap(pairs[i / 2], i % 2, to_fixed(sum != 0.0 ? weight / sum : weight));
    }
    pass.first.push_back(begin);
    pass.num_taps.push_back(end - begin);
  }
  return pass;
}

}  // namespace fovea
