#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::wire {

/// The bytes of a base64 text, with its padding or without, in the usual or the URL-safe alphabet;
/// line breaks are passed over. Nothing for a text that is no base64.
std::optional<std::vector<std::byte>> decode_base64(std::string_view text);

}  // namespace fovea::wire
