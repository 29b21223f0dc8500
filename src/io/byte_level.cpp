#include "io/byte_level.h"

#include "io/utf8.h"

namespace fovea {
namespace {

constexpr int kNoByte = -1;
constexpr std::size_t kNumChars = 0x144;  // one past the highest character of the alphabet

constexpr std::array<std::int16_t, kNumChars> invert(const std::array<std::uint16_t, 256>& chars) {
  std::array<std::int16_t, kNumChars> bytes{};
  bytes.fill(kNoByte);
  for (std::size_t byte = 0; byte < chars.size(); ++byte)
    bytes[chars[byte]] = static_cast<std::int16_t>(byte);
  return bytes;
}

constexpr auto kByteOfChar = invert(byte_level_chars());

}  // namespace

std::optional<std::string> byte_level_bytes(std::string_view spelling) {
  std::string bytes;
  while (!spelling.empty()) {
    const Utf8Char c = decode_valid_utf8_char(spelling);
    if (c.code_point >= kNumChars || kByteOfChar[c.code_point] == kNoByte) return std::nullopt;
    bytes += static_cast<char>(kByteOfChar[c.code_point]);
    spelling.remove_prefix(c.length);
  }
  return bytes;
}

}  // namespace fovea
