#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "fovea/image.h"

#include "base/json.h"
#include "support/sha256.h"

namespace fovea::test {

using Bytes = std::vector<std::byte>;

inline Bytes read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// Bytes of a file of the golden pictures.
inline Bytes read_picture(const std::string& name) {
  return read_bytes(FOVEA_TEST_DATA "/pictures/" + name);
}

/// A JSON file of the golden pictures.
inline json::value read_golden_json(const std::string& name) {
  const auto bytes = read_picture(name);
  auto value = json::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, name);
  EXPECT_TRUE(value.ok()) << value.error().message;
  return std::move(value).value();
}

inline std::string rgb_sha256(const Image& image) {
  return sha256_hex(std::as_bytes(std::span(image.rgb)));
}

/// Pixels that look random but are the same every time.
inline Image noise_image(int width, int height, std::uint32_t seed = 1) {
  Image image{width, height, {}};
  image.rgb.resize(3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
  for (auto& byte : image.rgb) {
    seed = seed * 1664525u + 1013904223u;
    byte = static_cast<std::uint8_t>(seed >> 24);
  }
  return image;
}

/// Overwrites `bytes` from `offset` on.
inline void patch(Bytes& bytes, std::size_t offset, std::initializer_list<int> values) {
  for (const int value : values) bytes.at(offset++) = static_cast<std::byte>(value);
}

/// Offset of the first place where `wanted` stands, which must exist.
inline std::size_t find_bytes(const Bytes& bytes, std::string_view wanted) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::size_t offset = text.find(wanted);
  EXPECT_NE(offset, std::string_view::npos);
  return offset;
}

}  // namespace fovea::test
