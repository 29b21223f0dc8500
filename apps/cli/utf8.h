#pragma once

#include <string>
#include <string_view>

namespace fovea::cli {

/// The text with U+FFFD for every byte that belongs to no character of UTF-8 (overlong forms and
/// surrogates are none). A text that comes back unchanged may go into JSON as it is.
std::string replace_bad_utf8(std::string_view text);

}  // namespace fovea::cli
