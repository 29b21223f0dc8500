#include <cmath>
#include <limits>

#include "conformance/conformance.h"

namespace fovea::conformance {
namespace {

class Experts : public ConformanceTest {
 protected:
  struct Weights {
    std::vector<Floats> up, down;
    std::vector<std::unique_ptr<const Matrix>> packed_up, packed_down;
  };

  Weights make(std::int64_t experts, std::int64_t dim, std::int64_t inner, DType storage) {
    Weights w;
    const auto add = [&](std::int64_t rows, std::int64_t cols, std::uint64_t seed,
                         std::vector<Floats>& plain,
                         std::vector<std::unique_ptr<const Matrix>>& packed) {
      Floats values = random_floats(rows * cols, seed, 0.3f);
      if (storage == DType::kBf16) values = rounded(values);
      auto matrix = ops().pack({Guarded::of(values, {rows, cols}).view(), {}}, storage);
      ASSERT_TRUE(matrix.ok());
      plain.push_back(std::move(values));
      packed.push_back(std::move(matrix).value());
    };
    for (std::int64_t e = 0; e < experts; ++e) {
      const auto seed = static_cast<std::uint64_t>(e);
      add(2 * inner, dim, 100 + seed, w.up, w.packed_up);
      add(dim, inner, 200 + seed, w.down, w.packed_down);
    }
    return w;
  }
};

TEST_P(Experts, RouteTakesTheLargestLowestIndexFirst) {
  const Floats logits = {1,   5,  3,
                         5,   2,  4,  //
                         0,   0,  0,
                         0,   0,  0,  //
                         -9,  2,  std::numeric_limits<float>::quiet_NaN(),
                         2.5, -1, 2};
  const Guarded experts(DType::kI32, {3, 3});
  const Guarded weights(DType::kF32, {3, 3});
  ops().moe_route(stream(), Guarded::of(logits, {3, 6}).view(), experts.view(), weights.view());
  EXPECT_EQ(experts.ints(), (Ints{1, 3, 5, 0, 1, 2, 3, 1, 5}));
  const double tail = std::exp(-1.0);
  const double third = std::exp(-0.5);
  expect_close(weights,
               {1 / (2 + tail), 1 / (2 + tail), tail / (2 + tail), 1.0 / 3, 1.0 / 3, 1.0 / 3,
                1 / (1 + 2 * third), third / (1 + 2 * third), third / (1 + 2 * third)},
               Tolerance::kElementwise, "weights");
  experts.check_guards();
}

TEST_P(Experts, MlpAddsTheWeightedExperts) {
  struct Case {
    std::int64_t rows, experts, k, dim, inner;
  };
  for (const DType storage : {DType::kF32, DType::kBf16}) {
    for (const Case c : {Case{1, 4, 2, 48, 20}, Case{9, 5, 3, 33, 17}, Case{120, 3, 2, 64, 40}}) {
      const Weights w = make(c.experts, c.dim, c.inner, storage);
      const Floats x = random_floats(c.rows * c.dim, 1);
      Ints experts;
      for (std::int64_t t = 0; t < c.rows; ++t) {
        for (std::int64_t i = 0; i < c.k; ++i) {
          // Distinct within a row; the last expert is never chosen by the first rows.
          experts.push_back(static_cast<std::int32_t>((t + i) % c.experts));
        }
      }
      const Floats weights = random_floats(c.rows * c.k, 2);
      const Floats before = random_floats(c.rows * c.dim, 3);
      Doubles expected = widened(before);
      reference::moe_mlp(x, experts, weights, w.up, w.down, c.k, c.dim, c.inner, expected);
      const Guarded y = Guarded::of(before, {c.rows, c.dim});
      ops().moe_mlp(stream(), Guarded::of(x, {c.rows, c.dim}).view(),
                    Guarded::of(experts, {c.rows, c.k}).view(),
                    Guarded::of(weights, {c.rows, c.k}).view(), w.packed_up, w.packed_down, nullptr,
                    y.view());
      const bool dots = rounds_activations() && storage == DType::kBf16;
      expect_close(y, expected, dots ? 1e-2 : Tolerance::kChain,
                   std::to_string(c.rows) + " rows of " + std::to_string(c.dim));
    }
  }
}

TEST_P(Experts, RowsAreBitEqualAtAnyBatch) {
  const std::int64_t rows = 90, num_experts = 4, k = 2, dim = 70, inner = 300;
  for (const DType storage : {DType::kF32, DType::kBf16}) {
    const Weights w = make(num_experts, dim, inner, storage);
    const Guarded x = Guarded::of(random_floats(rows * dim, 1), {rows, dim});
    const Guarded logits = Guarded::of(random_floats(rows * num_experts, 2), {rows, num_experts});
    const Floats before = random_floats(rows * dim, 3);
    const auto run = [&](std::int64_t begin, std::int64_t count) {
      const Guarded experts(DType::kI32, {count, k});
      const Guarded weights(DType::kF32, {count, k});
      const auto first = before.begin() + static_cast<std::ptrdiff_t>(begin * dim);
      const Guarded y = Guarded::of(Floats(first, first + count * dim), {count, dim});
      ops().moe_route(stream(), logits.view().rows(begin, count), experts.view(), weights.view());
      ops().moe_mlp(stream(), x.view().rows(begin, count), experts.view(), weights.view(),
                    w.packed_up, w.packed_down, nullptr, y.view());
      return y;
    };
    const Guarded all = run(0, rows);
    for (const std::int64_t count : {1, 2, 5, 16, 40}) {
      EXPECT_EQ(row_bits(run(17, count), 0, count), row_bits(all, 17, count)) << count << " rows";
    }
  }
}

FOVEA_CONFORMANCE(Experts);

}  // namespace
}  // namespace fovea::conformance
