#pragma once

#include <string>
#include <string_view>

namespace fovea::wire {

/// The text as a JSON string, quotes included. It must be UTF-8.
std::string json_string(std::string_view text);

}  // namespace fovea::wire
