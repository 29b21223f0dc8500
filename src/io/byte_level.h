#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fovea {

/// The printable character that stands for each byte in a byte-level vocabulary: 33-126, 161-172
/// and 174-255 stand for themselves, the other 68 bytes, in ascending order, are U+0100..U+0143.
/// Source: GPT-2's encoder.
constexpr std::array<std::uint16_t, 256> byte_level_chars() {
  std::array<std::uint16_t, 256> chars{};
  std::uint16_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    chars[byte] = itself ? static_cast<std::uint16_t>(byte) : next++;
  }
  return chars;
}

/// The bytes that a vocabulary entry spells, or nothing when a character of it stands for no byte.
/// `spelling` is well-formed UTF-8.
std::optional<std::string> byte_level_bytes(std::string_view spelling);

}  // namespace fovea
