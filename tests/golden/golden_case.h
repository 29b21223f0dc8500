#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"

namespace fovea::golden {

inline const std::filesystem::path kData = FOVEA_TEST_DATA;

/// The device that the answers and stages are computed on: FOVEA_GOLDEN_DEVICE, or the processor.
inline std::string device_name() {
  const char* name = std::getenv("FOVEA_GOLDEN_DEVICE");
  return name != nullptr ? name : "cpu";
}

inline std::vector<std::byte> read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

inline json::array read_cases(const std::string& folder) {
  auto document = json::parse_file(kData / folder / "cases.json", 10 << 20);
  EXPECT_TRUE(document.ok()) << document.error().message;
  return document->as_array();
}

/// The metric of the golden data: largest difference over the largest reference value.
inline double relative_error(std::span<const float> actual, std::span<const float> reference) {
  if (actual.size() != reference.size()) return INFINITY;
  double difference = 0, largest = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    difference = std::max(difference, std::abs(double{actual[i]} - double{reference[i]}));
    if (!std::isfinite(actual[i])) return INFINITY;
    largest = std::max(largest, std::abs(double{reference[i]}));
  }
  return difference / largest;
}

}  // namespace fovea::golden
