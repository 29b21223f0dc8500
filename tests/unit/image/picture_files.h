#pragma once

#include <cstddef>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <string>
#include <vector>

namespace fovea::test {

/// Bytes of a file of the golden pictures.
inline std::vector<std::byte> read_picture(const std::string& name) {
  std::ifstream file(std::string(FOVEA_TEST_DATA "/pictures/") + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

}  // namespace fovea::test
