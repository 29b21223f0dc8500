#!/usr/bin/env python3
"""Writes src/io/unicode_table.inc: which code points are letters, numbers or white space.

The GPT-2 splitting pattern needs nothing else of Unicode. Categories come from the package
`unicodedata2` (16.0.0, the version that the PyPI package `tokenizers` 0.23 matches with), white
space from the White_Space property, which no Unicode version has changed since 6.3.

usage: pip install unicodedata2==16.0.0; make_unicode_table.py > src/io/unicode_table.inc
"""

import unicodedata2 as unicode

BLOCK = 256  # code points per block
NUM_CODE_POINTS = 0x110000
OTHER, LETTER, NUMBER, SPACE = range(4)  # the order of enum class CharClass
WHITE_SPACE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029,
               0x202F, 0x205F, 0x3000}


def char_class(code_point):
    if code_point in WHITE_SPACE:
        return SPACE
    return {"L": LETTER, "N": NUMBER}.get(unicode.category(chr(code_point))[0], OTHER)


def packed_block(first):
    """Four classes a byte, the lowest code point in the lowest bits."""
    classes = [char_class(c) for c in range(first, first + BLOCK)]
    return tuple(sum(classes[i + k] << (2 * k) for k in range(4)) for i in range(0, BLOCK, 4))


def print_rows(values, per_row):
    for i in range(0, len(values), per_row):
        print("    " + ", ".join(str(v) for v in values[i:i + per_row]) + ",")


def main():
    blocks, index = {}, []
    for first in range(0, NUM_CODE_POINTS, BLOCK):
        index.append(blocks.setdefault(packed_block(first), len(blocks)))
    print(f"// Unicode {unicode.unidata_version}. Written by tools/make_unicode_table.py: do not edit.")
    print(f"constexpr std::array<std::uint8_t, {len(index)}> kBlockOf = {{")
    print_rows(index, 32)
    print("};")
    print(f"constexpr std::array<std::array<std::uint8_t, {BLOCK // 4}>, {len(blocks)}> kBlocks = {{{{")
    for block in blocks:
        print("    {{")
        print_rows(block, 32)
        print("    }},")
    print("}};")


main()
