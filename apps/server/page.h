#pragma once

#include <string_view>

namespace fovea::server {

/// page/index.html, put into the program when it is built.
std::string_view page_html();

}  // namespace fovea::server
