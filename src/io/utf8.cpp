#include "io/utf8.h"

#include <cstring>

namespace fovea {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

std::uint8_t byte_at(std::string_view bytes, std::size_t i) {
  return static_cast<std::uint8_t>(bytes[i]);
}

// What a lead byte demands. The second byte alone rules out overlong forms, surrogates and what
// lies above U+10FFFF.
struct Lead {
  std::uint8_t length;  // of the character; 0: no lead byte
  std::uint8_t second_min;
  std::uint8_t second_max;
};

Lead lead_of(std::uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xc2) return {0, 0, 0};
  if (lead < 0xe0) return {2, 0x80, 0xbf};
  if (lead == 0xe0) return {3, 0xa0, 0xbf};
  if (lead == 0xed) return {3, 0x80, 0x9f};
  if (lead < 0xf0) return {3, 0x80, 0xbf};
  if (lead == 0xf0) return {4, 0x90, 0xbf};
  if (lead < 0xf4) return {4, 0x80, 0xbf};
  if (lead == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

// How many bytes at the front belong to one character, finished or not: at least 1. `whole` tells
// which.
std::size_t maximal_subpart(std::string_view bytes, bool& whole) {
  const Lead lead = lead_of(byte_at(bytes, 0));
  whole = lead.length == 1;
  if (lead.length <= 1) return 1;
  if (bytes.size() < 2 || byte_at(bytes, 1) < lead.second_min ||
      byte_at(bytes, 1) > lead.second_max)
    return 1;
  std::size_t length = 2;
  while (length < lead.length && length < bytes.size() && (byte_at(bytes, length) & 0xc0) == 0x80)
    ++length;
  whole = length == lead.length;
  return length;
}

std::size_t ascii_prefix(std::string_view bytes) {
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t chunk;
    std::memcpy(&chunk, bytes.data() + i, 8);
    if ((chunk & 0x8080808080808080u) != 0) break;
  }
  while (i < bytes.size() && byte_at(bytes, i) < 0x80) ++i;
  return i;
}

}  // namespace

Utf8Char decode_utf8_char(std::string_view bytes) {
  bool whole = false;
  maximal_subpart(bytes, whole);
  return whole ? decode_valid_utf8_char(bytes) : Utf8Char{};
}

Utf8Char decode_valid_utf8_char(std::string_view text) {
  const std::uint32_t lead = byte_at(text, 0);
  const auto tail = [text](std::size_t i) { return byte_at(text, i) & 0x3fu; };
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xe0) return {(lead & 0x1fu) << 6 | tail(1), 2};
  if (lead < 0xf0) return {(lead & 0x0fu) << 12 | tail(1) << 6 | tail(2), 3};
  return {(lead & 0x07u) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4};
}

bool is_valid_utf8(std::string_view bytes) {
  for (;;) {
    bytes.remove_prefix(ascii_prefix(bytes));
    if (bytes.empty()) return true;
    bool whole = false;
    const std::size_t length = maximal_subpart(bytes, whole);
    if (!whole) return false;
    bytes.remove_prefix(length);
  }
}

void append_utf8(std::uint32_t code_point, std::string& out) {
  const auto put = [&out](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (code_point < 0x80) return put(code_point);
  if (code_point < 0x800) {
    put(0xc0u | code_point >> 6);
  } else {
    if (code_point < 0x10000) {
      put(0xe0u | code_point >> 12);
    } else {
      put(0xf0u | code_point >> 18);
      put(0x80u | (code_point >> 12 & 0x3fu));
    }
    put(0x80u | (code_point >> 6 & 0x3fu));
  }
  put(0x80u | (code_point & 0x3fu));
}

std::size_t append_lossy_utf8(std::string_view bytes, Utf8End end, std::string& out) {
  std::size_t used = 0;
  while (used < bytes.size()) {
    const std::string_view rest = bytes.substr(used);
    const std::size_t ascii = ascii_prefix(rest);
    if (ascii > 0) {
      out.append(rest.substr(0, ascii));
      used += ascii;
      continue;
    }
    bool whole = false;
    const std::size_t length = maximal_subpart(rest, whole);
    const bool unfinished = !whole && length == rest.size() && lead_of(byte_at(rest, 0)).length > 1;
    if (unfinished && end == Utf8End::kMore) break;
    out.append(whole ? rest.substr(0, length) : kReplacement);
    used += length;
  }
  return used;
}

}  // namespace fovea
