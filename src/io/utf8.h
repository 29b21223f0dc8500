#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fovea {

/// A code point and the bytes it took; length 0 stands for an invalid sequence.
struct Utf8Char {
  std::uint32_t code_point = 0;
  std::uint8_t length = 0;
};

/// Reads one character at the front of `bytes` (not empty), as Unicode defines well-formed UTF-8:
/// no overlong forms, no surrogates, nothing above U+10FFFF.
Utf8Char decode_utf8_char(std::string_view bytes);

/// The same for text that is known to be well formed.
Utf8Char decode_valid_utf8_char(std::string_view text);

bool is_valid_utf8(std::string_view bytes);

/// Appends `code_point`, a Unicode scalar value.
void append_utf8(std::uint32_t code_point, std::string& out);

enum class Utf8End {
  kComplete,  ///< No more bytes follow: an unfinished character at the end is invalid.
  kMore,      ///< More bytes follow: an unfinished character at the end is left alone.
};

/// Appends `bytes` to `out` as well-formed UTF-8; each maximal invalid subsequence becomes one
/// U+FFFD (WHATWG Encoding Standard; also what Python's errors="replace" does). Returns how many
/// bytes were used: all, or with kMore all but an unfinished character of at most three bytes.
std::size_t append_lossy_utf8(std::string_view bytes, Utf8End end, std::string& out);

}  // namespace fovea
