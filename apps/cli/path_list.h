#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fovea::cli {

/// The paths in a list: one a line, or one before each zero byte if there are any ("find -print0").
/// Empty ones and the \r of \r\n are left out.
std::vector<std::string> split_list(std::string_view text);

}  // namespace fovea::cli
