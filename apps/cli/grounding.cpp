#include "grounding.h"

#include <cstddef>

namespace fovea::cli {
namespace {

// Byte offset of the code point with this index, or the text's length.
std::size_t byte_offset(std::string_view text, int code_point_idx) {
  int seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool starts_code_point = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
    if (starts_code_point && seen++ == code_point_idx) return i;
  }
  return text.size();
}

}  // namespace

std::string_view grounded_text(const Reasoning& reasoning, const Grounding& span) {
  const std::string_view text = reasoning.text;
  if (span.start_idx < 0 || span.end_idx <= span.start_idx) return {};
  const std::size_t begin = byte_offset(text, span.start_idx);
  return text.substr(begin, byte_offset(text, span.end_idx) - begin);
}

}  // namespace fovea::cli
