#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace fovea {

inline constexpr int kGlyphWidth = 5;
inline constexpr int kGlyphHeight = 12;  ///< 3 rows for accents, 7 above the baseline, 2 below it.

/// One character: rows from top to bottom, bit 4 is the leftmost pixel.
using Glyph = std::array<std::uint8_t, kGlyphHeight>;

/// The glyph of a printable ASCII character or a Latin-1 letter; that of "?" for everything else.
Glyph glyph_of(char32_t character);

/// Characters of UTF-8 text; each broken byte becomes U+FFFD.
std::u32string characters_of(std::string_view utf8);

}  // namespace fovea
