#include "tensor/int4.h"

#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace fovea {
namespace {

constexpr auto kGroup = static_cast<std::size_t>(kInt4Group);

// What 4 bits keep of a row.
std::vector<float> kept(const std::vector<float>& row) {
  const float step = int4_row_step(row);
  std::vector<float> values(row.size());
  for (std::size_t at = 0; at < row.size(); at += kGroup) {
    const Int4Group group = quantise_int4(row.data() + at, step);
    for (std::size_t i = 0; i < kGroup; ++i) {
      values[at + i] = group.value(static_cast<std::int64_t>(i)) * step;
    }
  }
  return values;
}

// The root of the mean squared error, as a share of the values'.
template <class Distribution>
double relative_error(Distribution distribution) {
  std::mt19937 random(1);
  double error = 0, total = 0;
  for (int row = 0; row < 50; ++row) {
    std::vector<float> values(2048);
    for (float& value : values) value = 0.02f * distribution(random);
    const std::vector<float> after = kept(values);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double difference = static_cast<double>(values[i]) - static_cast<double>(after[i]);
      error += difference * difference;
      total += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
  }
  return std::sqrt(error / total);
}

TEST(Int4, ErrsByLittle) {
  EXPECT_NEAR(relative_error(std::normal_distribution<float>()), 0.073, 0.001);
  EXPECT_LT(relative_error(std::uniform_real_distribution<float>(-1, 1)), 0.07);
  // Of heavy tails: one in 16 may be far larger than the others.
  EXPECT_LT(relative_error(std::student_t_distribution<float>(5)), 0.09);
}

TEST(Int4, EveryElementIsWithinAStepOfItsGroup) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<float> values(kGroup);
    float largest = 0;
    for (float& value : values) {
      value = normal(random);
      largest = std::max(largest, std::fabs(value));
    }
    const std::vector<float> after = kept(values);
    for (std::size_t i = 0; i < kGroup; ++i) {
      // A scale may be as small as cuts the largest by a third; none is larger than 3/2 of an
      // eighth.
      EXPECT_NEAR(after[i], values[i], largest / 3);
    }
  }
}

TEST(Int4, WhatItKeepsItKeepsAsItIs) {
  std::mt19937 random(3);
  std::uniform_int_distribution<int> code(-8, 7), exponent(0, 8);
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<float> values(4 * kGroup);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float scale = std::ldexp(trial % 2 == 0 ? 1.0f : -1.375f, static_cast<int>(i / kGroup));
      const int outer = i % kGroup == 0 ? -8 : i % kGroup == 1 ? 7 : code(random);
      values[i] = static_cast<float>(outer) * scale;
    }
    EXPECT_EQ(kept(values), values);
  }
}

TEST(Int4, WeightsAreExactInBf16) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> values(1024);
  for (float& value : values) value = normal(random);
  for (const float value : kept(values)) EXPECT_EQ(round_to_bf16(value), value);
}

TEST(Int4, StepsArePowersOfTwoThatReachTheLargest) {
  for (const float largest : {1e-30f, 0.7f, 3136.0f, 3137.0f, 1e30f, 3.4e38f}) {
    const std::vector<float> row{0, largest / 2, -largest};
    const float step = int4_row_step(row);
    int exponent = 0;
    EXPECT_EQ(std::frexp(step, &exponent), 0.5f);
    EXPECT_GE(step * 7 * 448, largest);
    EXPECT_LT(step / 2 * 7 * 448, largest);
  }
}

TEST(Int4, ZerosStayZeros) {
  EXPECT_EQ(kept(std::vector<float>(32, 0.0f)), std::vector<float>(32, 0.0f));
  EXPECT_EQ(kept(std::vector<float>(32, 1e-42f)), std::vector<float>(32, 0.0f));
}

TEST(Int4, ARowThatIsNotFiniteIsNaN) {
  for (const float odd :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> values(32, 1.0f);
    values[20] = odd;
    for (const float value : kept(values)) EXPECT_TRUE(std::isnan(value));
  }
}

TEST(Int4, FitsRowsOfWholeGroups) {
  EXPECT_TRUE(fits_int4(16));
  EXPECT_TRUE(fits_int4(4304));
  EXPECT_FALSE(fits_int4(0));
  EXPECT_FALSE(fits_int4(588));
}

}  // namespace
}  // namespace fovea
