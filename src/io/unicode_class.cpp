#include "io/unicode_class.h"

#include <array>

namespace fovea {
namespace {

#include "io/unicode_table.inc"

}  // namespace

CharClass char_class(std::uint32_t code_point) {
  const std::uint8_t four = kBlocks[kBlockOf[code_point >> 8]][(code_point & 0xffu) >> 2];
  return static_cast<CharClass>(four >> (2 * (code_point & 3u)) & 3u);
}

}  // namespace fovea
