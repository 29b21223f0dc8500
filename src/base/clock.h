#pragma once

#include <chrono>

namespace fovea {

/// Milliseconds on a clock that never goes back; only differences mean anything.
inline double now_ms() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(now).count();
}

}  // namespace fovea
