#include <cmath>
#include <limits>

#include "conformance/conformance.h"
#include "tensor/half.h"

namespace fovea::conformance {
namespace {

using Rows = ConformanceTest;

TEST_P(Rows, LayerNormMatchesReference) {
  for (const std::int64_t width : {1, 7, 48, 130, 720, 2048}) {
    const std::int64_t rows = 13;
    const Floats x = random_floats(rows * width, 1, 3);
    const Floats weight = random_floats(width, 2);
    const Floats bias = random_floats(width, 3);
    const Guarded input = Guarded::of(x, {rows, width});
    const Guarded w = Guarded::of(weight, {width});
    const Guarded b = Guarded::of(bias, {width});
    const Guarded y(DType::kF32, {rows, width});
    ops().layer_norm(stream(), input.view(), w.view(), b.view(), 1e-5f, y.view());
    const Doubles expected = reference::layer_norm(x, weight, bias, 1e-5, width);
    expect_close(y, expected, Tolerance::kSum, "width " + std::to_string(width));
    ops().layer_norm(stream(), input.view(), w.view(), b.view(), 1e-5f, input.view());
    expect_close(input, expected, Tolerance::kSum, "in place, width " + std::to_string(width));
  }
}

TEST_P(Rows, LayerNormFarFromZeroKeepsItsDigits) {
  const std::int64_t width = 2048;
  Floats x = random_floats(width, 4);
  for (float& value : x) value += 1000;
  const Floats ones(static_cast<std::size_t>(width), 1.0f);
  const Floats zeros(static_cast<std::size_t>(width), 0.0f);
  const Guarded y(DType::kF32, {1, width});
  ops().layer_norm(stream(), Guarded::of(x, {1, width}).view(), Guarded::of(ones, {width}).view(),
                   Guarded::of(zeros, {width}).view(), 1e-5f, y.view());
  expect_close(y, reference::layer_norm(x, ones, zeros, 1e-5, width), Tolerance::kSum, "offset");
}

TEST_P(Rows, ActivationsMatchReferenceOverTheWholeRange) {
  Floats x = random_floats(100000, 5, 12);
  for (const float extreme : {0.0f, -0.0f, 1e-30f, -1e-30f, 50.0f, -50.0f, 1e4f, -1e4f, 1e30f}) {
    x.push_back(extreme);
  }
  const Shape shape{static_cast<std::int64_t>(x.size())};
  for (const Activation activation :
       {Activation::kNone, Activation::kGeluTanh, Activation::kGeluErf}) {
    const Guarded input = Guarded::of(x, shape);
    const Guarded y(DType::kF32, shape);
    ops().activate(stream(), input.view(), activation, y.view());
    const Floats values = y.floats();
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double exact = static_cast<double>(x[i]);
      const double expected = activation == Activation::kGeluTanh  ? reference::gelu_tanh(exact)
                              : activation == Activation::kGeluErf ? reference::gelu_erf(exact)
                                                                   : exact;
      // Relative where the function is large, absolute in its tail.
      ASSERT_NEAR(values[i], expected, 1e-6 * std::fabs(expected) + 1e-8) << "x = " << x[i];
    }
    y.check_guards();
    ops().activate(stream(), input.view(), activation, input.view());
    EXPECT_EQ(input.floats(), values) << "in place";
  }
}

TEST_P(Rows, ActivationsPassNanOn) {
  const Floats x(3, std::numeric_limits<float>::quiet_NaN());
  for (const Activation activation : {Activation::kGeluTanh, Activation::kGeluErf}) {
    const Guarded y = Guarded::of(Floats{0, 0, 0}, {3});
    ops().activate(stream(), Guarded::of(x, {3}).view(), activation, y.view());
    for (const float value : y.floats()) EXPECT_TRUE(std::isnan(value));
  }
}

TEST_P(Rows, EmbedLeavesRowsOfNegativeIds) {
  const std::int64_t width = 50;
  const Floats table = rounded(random_floats(20 * width, 6));
  const Ints ids = {3, -1, 19, 0, -1, 3};
  const Floats before = random_floats(6 * width, 7);
  Floats expected = before;
  for (std::size_t t = 0; t < ids.size(); ++t) {
    if (ids[t] < 0) continue;
    std::copy_n(table.begin() + ids[t] * width, width,
                expected.begin() + static_cast<std::ptrdiff_t>(t) * width);
  }
  for (const Guarded& source :
       {Guarded::of(table, {20, width}), Guarded::bf16_of(table, {20, width})}) {
    const Guarded y = Guarded::of(before, {6, width});
    ops().embed(stream(), source.view(), Guarded::of(ids, {6}).view(), y.view());
    EXPECT_EQ(y.floats(), expected);
    y.check_guards();
  }
}

TEST_P(Rows, ScatterAndGatherMoveRows) {
  const std::int64_t width = 33;
  const Floats x = random_floats(4 * width, 8);
  const Ints rows = {5, 0, 2, 6};
  const Guarded index = Guarded::of(rows, {4});
  const Floats before = random_floats(7 * width, 9);
  const Guarded wide = Guarded::of(before, {7, width});
  ops().scatter_rows(stream(), Guarded::of(x, {4, width}).view(), index.view(), wide.view());
  Floats expected = before;
  for (std::int64_t m = 0; m < 4; ++m) {
    std::copy_n(x.begin() + m * width, width,
                expected.begin() + rows[static_cast<std::size_t>(m)] * width);
  }
  EXPECT_EQ(wide.floats(), expected);
  const Guarded back(DType::kF32, {4, width});
  ops().gather_rows(stream(), wide.view(), index.view(), back.view());
  EXPECT_EQ(back.floats(), x);
  wide.check_guards();
  back.check_guards();
}

TEST_P(Rows, TauScalesQueriesAndValues) {
  const HeadLayout heads{3, 3, 24, 16};
  const std::int64_t rows = 11;
  const std::int64_t dim = 3 * 24;
  const Floats qkv = random_floats(rows * 3 * dim, 10);
  const Floats tau = random_floats(rows * 6, 11, 2);
  const Floats scale = random_floats(20 * 3, 12);
  const Ints positions = random_ints(rows, 20, 13);
  Doubles expected = widened(qkv);
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t h = 0; h < 3; ++h) {
      const auto offset = static_cast<double>(
          scale[static_cast<std::size_t>(positions[static_cast<std::size_t>(t)] * 3 + h)]);
      for (std::int64_t d = 0; d < 24; ++d) {
        const auto q = static_cast<std::size_t>(t * 3 * dim + h * 24 + d);
        const auto v = q + static_cast<std::size_t>(2 * dim);
        const auto at = static_cast<std::size_t>(t * 6 + h);
        expected[q] *= std::tanh(static_cast<double>(tau[at])) + offset;
        expected[v] *= std::tanh(static_cast<double>(tau[at + 3])) + offset;
      }
    }
  }
  const Guarded y = Guarded::of(qkv, {rows, 3 * dim});
  ops().tau_scale(stream(), Guarded::of(tau, {rows, 6}).view(), Guarded::of(scale, {20, 3}).view(),
                  Guarded::of(positions, {rows}).view(), heads, y.view());
  expect_close(y, expected, Tolerance::kElementwise, "tau");
}

TEST_P(Rows, RopeRotatesQueriesAndKeysInPlace) {
  const HeadLayout heads{4, 2, 32, 8};
  const std::int64_t rows = 9;
  const std::int64_t width = 8 * 32;
  const std::int64_t half = 8;  // the rest of a head passes through
  Floats rope;
  for (std::int64_t p = 0; p < 40; ++p) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * std::pow(10000.0, -static_cast<double>(i) / 8);
      rope.push_back(static_cast<float>(std::cos(angle)));
      rope.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  const Floats qkv = random_floats(rows * width, 14);
  const Ints positions = random_ints(rows, 40, 15);
  Ints slots(static_cast<std::size_t>(rows), -1);
  Doubles expected = widened(qkv);
  for (std::int64_t t = 0; t < rows; ++t) {
    const std::span<const float> table(
        rope.data() + positions[static_cast<std::size_t>(t)] * half * 2, half * 2);
    for (std::int64_t h = 0; h < 6; ++h) {
      reference::rotate({expected.data() + t * width + h * 32, 32}, table);
    }
  }
  const Guarded k_pages(DType::kF32, {2, 2, 8 * 32});
  const Guarded v_pages(DType::kF32, {2, 2, 8 * 32});
  const Guarded y = Guarded::of(qkv, {rows, width});
  ops().rope_and_store_kv(stream(), Guarded::of(rope, {40, half, 2}).view(),
                          Guarded::of(positions, {rows}).view(), Guarded::of(slots, {rows}).view(),
                          heads, y.view(), {k_pages.view(), v_pages.view()});
  expect_close(y, expected, Tolerance::kElementwise, "rope");
  for (const float value : k_pages.floats()) EXPECT_TRUE(std::isnan(value)) << "slot -1 stored";
  for (const float value : v_pages.floats()) EXPECT_TRUE(std::isnan(value)) << "slot -1 stored";
}

TEST_P(Rows, FourierFeaturesMatchReference) {
  for (const std::int64_t inputs : {1, 2}) {
    const std::int64_t rows = 5;
    const std::int64_t features = 37;
    Floats values = random_floats(rows * inputs, 16);
    for (float& value : values) value = std::fabs(value);
    const Floats frequencies = rounded(random_floats(inputs * features, 17));
    for (const bool bf16 : {false, true}) {
      const Guarded y(DType::kF32, {rows, 2 * features});
      ops().fourier_features(stream(), Guarded::of(values, {rows, inputs}).view(),
                             Guarded::of(frequencies, {inputs, features}).view(), bf16, y.view());
      expect_close(y, reference::fourier_features(values, frequencies, inputs, bf16),
                   bf16 ? 8e-3 : Tolerance::kSum, bf16 ? "bf16" : "f32");
      if (!bf16) continue;
      for (const float value : y.floats()) EXPECT_EQ(value, round_to_bf16(value));
    }
  }
}

TEST_P(Rows, ArgmaxBinsTakesTheLowestOfEqualBinsAndTheMassAround) {
  const std::int64_t bins = 1024;
  Floats logits = random_floats(4 * bins, 18, 4);
  logits[100] = logits[700] = 9;                       // row 0: a tie
  logits[static_cast<std::size_t>(bins)] = 9;          // row 1: the first bin
  logits[static_cast<std::size_t>(3 * bins - 1)] = 9;  // row 2: the last bin
  const Ints expected_bins = {100, 0, 1023, -1};
  for (const int window : {0, 3, 2000}) {
    const Guarded found(DType::kI32, {4});
    const Guarded mass(DType::kF32, {4});
    ops().argmax_bins(stream(), Guarded::of(logits, {4, bins}).view(), window, found.view(),
                      mass.view());
    for (std::int64_t r = 0; r < 4; ++r) {
      const auto row = static_cast<std::size_t>(r);
      const std::span<const float> line(logits.data() + r * bins, static_cast<std::size_t>(bins));
      const Doubles p = reference::softmax(line);
      const auto best = std::max_element(line.begin(), line.end()) - line.begin();
      if (expected_bins[row] >= 0) {
        EXPECT_EQ(found.ints()[row], expected_bins[row]);
      }
      EXPECT_EQ(found.ints()[row], best);
      double near = 0;
      for (std::int64_t i = 0; i < bins; ++i) {
        if (std::abs(i - best) <= window) near += p[static_cast<std::size_t>(i)];
      }
      EXPECT_NEAR(mass.floats()[row], near, 2e-6);
    }
  }
}

FOVEA_CONFORMANCE(Rows);

}  // namespace
}  // namespace fovea::conformance
