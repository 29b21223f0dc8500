#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace fovea::json {

/// The first key that an object of `text` names twice, at any depth, with escapes decoded; nothing
/// when every key is unique. The JSON library keeps the last of two members silently, which lets
/// one file mean two things to two readers. Precondition: `text` parsed as JSON.
std::optional<std::string> find_doubled_key(std::string_view text);

}  // namespace fovea::json
