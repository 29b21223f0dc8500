#pragma once

#include <cstdint>
#include <string>

namespace fovea::hub {

/// "512 B", "12.3 MB", "3.85 GB": three digits, powers of 1000 as file managers and shops count.
std::string human_bytes(std::uint64_t bytes);

}  // namespace fovea::hub
