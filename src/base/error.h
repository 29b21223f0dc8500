#pragma once

#include <fmt/format.h>
#include <utility>

#include "fovea/result.h"

namespace fovea {

/// error(code, "image {}x{} exceeds ...", w, h): an Error with a formatted message.
template <class... Args>
Error error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Error{code, fmt::format(format, std::forward<Args>(args)...)};
}

template <class... Args>
Error invalid_argument(fmt::format_string<Args...> format, Args&&... args) {
  return Error{ErrorCode::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...)};
}

}  // namespace fovea
