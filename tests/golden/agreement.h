#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/config.h"
#include "tensor/dtype.h"

namespace fovea::agreement {

/// Rows of one stage of a pass, on the host: [values.size() / width, width].
struct Rows {
  std::vector<float> values;
  std::int64_t width = 1;

  std::int64_t count() const { return static_cast<std::int64_t>(values.size()) / width; }
  std::span<const float> row(std::int64_t i) const {
    return std::span(values).subspan(static_cast<std::size_t>(i * width),
                                     static_cast<std::size_t>(width));
  }
};

/// How far rows are from the reference's.
struct Difference {
  double rms = INFINITY;  ///< root of the summed squares of differences over that of the reference
  double largest = INFINITY;  ///< absolute
  double scale = 0;           ///< root mean square of the reference's values
  double least_cosine = -1;   ///< of a row and its reference
  double equal_argmax = 0;    ///< share of rows whose largest value stands at the same place
};

/// Infinite where shapes differ or a value is no number.
inline Difference compare(const Rows& actual, const Rows& reference) {
  Difference result;
  if (actual.width != reference.width || actual.values.size() != reference.values.size() ||
      reference.values.empty()) {
    return result;
  }
  double error = 0, total = 0, largest = 0, least_cosine = 1;
  std::int64_t equal = 0;
  for (std::int64_t i = 0; i < reference.count(); ++i) {
    const auto a = actual.row(i), b = reference.row(i);
    double dot = 0, aa = 0, bb = 0;
    for (std::size_t k = 0; k < a.size(); ++k) {
      const double x = a[k], y = b[k];
      error += (x - y) * (x - y);
      largest = std::max(largest, std::abs(x - y));
      dot += x * y;
      aa += x * x;
      bb += y * y;
    }
    total += bb;
    least_cosine = std::min(least_cosine, dot / std::sqrt(aa * bb));
    equal += std::ranges::max_element(a) - a.begin() == std::ranges::max_element(b) - b.begin();
  }
  if (!std::isfinite(error)) return result;
  result.rms = std::sqrt(error / total);
  result.largest = largest;
  result.scale = std::sqrt(total / static_cast<double>(reference.values.size()));
  result.least_cosine = least_cosine;
  result.equal_argmax = static_cast<double>(equal) / static_cast<double>(reference.count());
  return result;
}

/// Relative errors (root mean square) that a precision must be expected to make.
///
/// Rounding a number of 1 to 2 to m bits behind the point errs by 2^-m / sqrt(12), which is
/// u = 0.2 * 2^-m of what such numbers are on average. A residual stream is the sum of N branches
/// of like size. A branch of random weights passes the error of the stream in front of it on as it
/// is, and adds b of its own (sqrt(r) u for r roundings in a row). So the n-th branch makes e^2 of
/// the stream e^2 + b^2 / n, and rounding the stream itself adds u^2: e_N^2 = b^2 H_N + N u^2,
/// where H_N is the harmonic sum.
class Expected {
 public:
  /// `blocks` is the type of the large matrices (f8e4m3, int4, or `storage`), `pages` that of keys
  /// and values.
  Expected(const ModelConfig& config, DType storage, DType blocks, DType pages)
      : config_(config),
        unit_(unit_of(storage)),
        unit_of_blocks_(unit_of(blocks)),
        blocks_(blocks) {
    if (pages == DType::kF8E4M3 || pages == DType::kI8) unit_of_pages_ = unit_of(pages);
  }

  /// Of the encoder's output and of the embeddings made from it.
  double vision() const {
    // Rounded in a row: norm, q k v, attention's weights, output; norm, hidden. In 8 bits: both
    // operands of qkv and fc1.
    return tower(config_.vision.enc_n_layers, 3.5, 2);
  }

  /// Of hidden states and logits, whose rows have seen embeddings that are off already.
  double text() const {
    // As above, and q and k once more when they are rotated. In 8 bits: both operands of all four.
    const double dense = tower(config_.text.n_layers, 3.5, 4, unit_of_pages_);
    return std::hypot(dense, vision()) + swapped_experts();
  }

 private:
  // What 4 bits make of normally distributed weights: tests/unit/tensor/int4_test.cpp holds them to
  // it.
  static constexpr double kInt4Error = 0.073;

  // 0.2 * 2^-mantissa bits.
  static double unit_of(DType dtype) {
    if (dtype == DType::kF8E4M3) return 0.2 / 8;
    if (dtype == DType::kI8) return 3.0 / 127 / std::sqrt(12.0);  // the largest of a head is 3 rms
    if (dtype == DType::kInt4) return kInt4Error;
    return dtype == DType::kBf16 ? 0.2 / 128 : 0.2 / 8388608;
  }

  // A branch has two products in a row. In 4 bits each counts the error of its weights; activations
  // stay as they are.
  // unit_of_pages: of attention's keys and values, 0 if no coarser than all else.
  double tower(int blocks, double roundings, double operands, double unit_of_pages = 0) const {
    const int branches = 2 * blocks;
    double harmonic = 0;
    for (int n = 1; n <= branches; ++n) harmonic += 1.0 / n;
    if (blocks_ == DType::kInt4) operands = 2;
    const bool is_narrow = blocks_ == DType::kF8E4M3 || blocks_ == DType::kInt4;
    const double own = roundings * unit_ * unit_ +
                       (is_narrow ? operands * unit_of_blocks_ * unit_of_blocks_ : 0) +
                       unit_of_pages * unit_of_pages;  // k and v, in every second branch
    return std::sqrt(own * harmonic + branches * unit_ * unit_);
  }

  // A router takes k of m experts. Its logits are off by e of their own deviation, so near the
  // k-th largest, where d of m lie in one deviation, about 0.56 d e of the chosen are others. One
  // that is changed for another turns w^2 of the branch twice, w being the least weight among the
  // chosen, as a share of all: b^2 is c e. A branch that averages k experts is itself s of a usual
  // one. So the branch makes e^2 of the stream e^2 + s c e / n, and e grows by s c / (2 n),
  // whatever it is. For logits that are normal and 8 of 64: d = 13, c = 0.5; and s = 0.2.
  double swapped_experts() const {
    const TextConfig& text = config_.text;
    if (!text.moe || text.moe->num_experts <= text.moe->experts_per_token) return 0;
    constexpr double kSwapped = 0.2 * 0.5;
    double error = 0;
    for (int layer = text.moe->start_layer; layer < text.n_layers; ++layer) {
      error += kSwapped / (2 * (2 * layer + 2));
    }
    return error;
  }

  const ModelConfig& config_;
  double unit_, unit_of_blocks_, unit_of_pages_ = 0;
  DType blocks_;
};

}  // namespace fovea::agreement
