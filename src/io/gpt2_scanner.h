#pragma once

#include <cstddef>
#include <string_view>

namespace fovea {

/// The splitting pattern of GPT-2, which `{"type": "ByteLevel", "use_regex": true}` stands for.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Length in bytes of the match of kGpt2Pattern at the front of `text` (not empty, well-formed
/// UTF-8): at least 1, because the pattern matches everywhere.
std::size_t gpt2_piece_length(std::string_view text);

}  // namespace fovea
