#pragma once

#include <cstdint>

namespace fovea {

/// What the GPT-2 splitting pattern tells apart. The order is that of tools/make_unicode_table.py.
enum class CharClass : std::uint8_t {
  kOther,
  kLetter,  ///< General categories L*
  kNumber,  ///< General categories N*
  kSpace,   ///< Property White_Space
};

/// Class of a Unicode scalar value (Unicode 16).
CharClass char_class(std::uint32_t code_point);

}  // namespace fovea
