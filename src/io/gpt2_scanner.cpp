#include "io/gpt2_scanner.h"

#include <array>
#include <cstdint>

#include "io/unicode_class.h"
#include "io/utf8.h"

namespace fovea {
namespace {

constexpr std::array<CharClass, 128> ascii_classes() {
  std::array<CharClass, 128> classes{};
  for (unsigned c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter) classes[c] = CharClass::kLetter;
    if (c >= '0' && c <= '9') classes[c] = CharClass::kNumber;
    if (c == ' ' || (c >= 9 && c <= 13)) classes[c] = CharClass::kSpace;
  }
  return classes;
}

constexpr auto kAsciiClass = ascii_classes();

struct ClassedChar {
  CharClass char_class;
  std::uint8_t length;
};

ClassedChar classify(std::string_view text, std::size_t at) {
  const auto lead = static_cast<std::uint8_t>(text[at]);
  if (lead < 0x80) return {kAsciiClass[lead], 1};
  const Utf8Char c = decode_valid_utf8_char(text.substr(at));
  return {char_class(c.code_point), c.length};
}

// Length of 's 't 'm 'd 're 've 'll at the front, or 0.
std::size_t contraction_length(std::string_view text) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const char c = text[1];
  if (c == 's' || c == 't' || c == 'm' || c == 'd') return 2;
  if (text.size() < 3) return 0;
  const char d = text[2];
  return (c == 'r' && d == 'e') || (c == 'v' && d == 'e') || (c == 'l' && d == 'l') ? 3 : 0;
}

std::size_t run_end(std::string_view text, std::size_t at, CharClass wanted) {
  while (at < text.size()) {
    const ClassedChar c = classify(text, at);
    if (c.char_class != wanted) break;
    at += c.length;
  }
  return at;
}

// \s+(?!\S)|\s+ : a run of spaces leaves its last one to what follows, unless that would leave
// nothing.
std::size_t space_length(std::string_view text) {
  std::size_t at = 0;
  std::size_t last = 0;  // where the last space begins
  while (at < text.size()) {
    const ClassedChar c = classify(text, at);
    if (c.char_class != CharClass::kSpace) return last > 0 ? last : at;
    last = at;
    at += c.length;
  }
  return at;
}

}  // namespace

std::size_t gpt2_piece_length(std::string_view text) {
  if (const std::size_t length = contraction_length(text); length > 0) return length;
  const std::size_t begin = text[0] == ' ' && text.size() > 1 ? 1 : 0;
  const ClassedChar first = classify(text, begin);
  if (first.char_class == CharClass::kSpace) return space_length(text);
  return run_end(text, begin + first.length, first.char_class);
}

}  // namespace fovea
