#pragma once

// The only header that includes the JSON library (Boost.JSON, header and library of the system).
#include <boost/json.hpp>
#include <filesystem>
#include <string_view>

#include "fovea/result.h"

namespace fovea::json {

using boost::json::array;
using boost::json::object;
using boost::json::value;

/// Parses text with bounds on nesting. `what` names the source in the error ("config.json").
/// Errors: kInvalidArgument with the byte offset of the first mistake, also for invalid UTF-8 and
/// trailing bytes.
Result<value> parse(std::string_view text, std::string_view what, int max_depth = 64);

/// Reads and parses a file of at most max_bytes.
Result<value> parse_file(const std::filesystem::path& path, std::size_t max_bytes);

}  // namespace fovea::json
