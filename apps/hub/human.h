#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace fovea::hub {

/// "512 B", "12.3 MB", "3.85 GB": three digits, powers of 1000 as file managers and shops count.
std::string human_bytes(std::uint64_t bytes);

/// What a server wrote, fit for a terminal: printable ASCII, everything else as "?".
std::string harmless(std::string_view text);

}  // namespace fovea::hub
