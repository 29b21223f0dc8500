#include "path_list.h"

#include <algorithm>
#include <cstddef>

namespace fovea::cli {

std::vector<std::string> split_list(std::string_view text) {
  const char separator = text.find('\0') == std::string_view::npos ? '\n' : '\0';
  std::vector<std::string> paths;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    std::string_view line = text.substr(0, end);
    if (separator == '\n' && line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) paths.emplace_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return paths;
}

}  // namespace fovea::cli
