// e4m3: the codes that numbers round to, on the host and in kernels.

#include <cmath>
#include <gtest/gtest.h>
#include <limits>

#include "kernels/common.h"
#include "tensor/half.h"

namespace fovea {
namespace {

// Every code that is a number, tried one after the other; ties go to the even one.
std::uint8_t nearest(float x) {
  int best = 0;
  for (int code = 1; code < 0x7f; ++code) {
    const double step = std::fabs(double{std::fabs(x)} - f8e4m3_to_f32(std::uint8_t(code)));
    const double least = std::fabs(double{std::fabs(x)} - f8e4m3_to_f32(std::uint8_t(best)));
    if (step < least || (step == least && code % 2 == 0)) best = code;
  }
  return static_cast<std::uint8_t>(best | (std::signbit(x) ? 0x80 : 0));
}

void expect_nearest(float x) {
  EXPECT_EQ(f32_to_f8e4m3(x), nearest(x)) << x;
  EXPECT_EQ(kernels::from_f32<kernels::f8e4m3>(x).bits, nearest(x)) << x;
}

TEST(Float8, RoundsToTheNearestCode) {
  for (int code = 0; code < 0x7e; ++code) {
    const float here = f8e4m3_to_f32(static_cast<std::uint8_t>(code));
    const float next = f8e4m3_to_f32(static_cast<std::uint8_t>(code + 1));
    const float middle = (here + next) / 2;
    for (const float x : {here, middle, std::nextafter(middle, 0.0f),
                          std::nextafter(middle, 500.0f), std::nextafter(next, 0.0f)}) {
      expect_nearest(x);
      expect_nearest(-x);
    }
  }
}

TEST(Float8, WhatIsTooLargeBecomesTheLargest) {
  for (const float x : {448.0f, 464.0f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(f32_to_f8e4m3(x), 0x7e);
    EXPECT_EQ(kernels::from_f32<kernels::f8e4m3>(-x).bits, 0xfe);
  }
}

}  // namespace
}  // namespace fovea
