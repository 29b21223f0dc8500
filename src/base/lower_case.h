#pragma once

#include <string>
#include <string_view>

namespace fovea {

/// Names of hosts, schemes and headers in lower case. Only ASCII has two cases there, in any
/// locale.
inline std::string lower_case(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

}  // namespace fovea
