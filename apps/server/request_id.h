#pragma once

#include <string>
#include <string_view>

namespace fovea::server {

/// A new ULID: 26 characters, in the order of time. Any thread.
std::string make_request_id();

/// Whether a caller's id can be taken over: at most 128 printable ASCII characters, not none.
bool is_good_request_id(std::string_view id);

}  // namespace fovea::server
