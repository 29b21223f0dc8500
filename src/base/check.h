#pragma once

#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <string>

namespace fovea {

[[noreturn]] inline void check_failed(const char* file, int line, const char* condition,
                                      const std::string& message) {
  std::fprintf(stderr, "%s:%d: check failed: %s %s\n", file, line, condition, message.c_str());
  std::abort();
}

}  // namespace fovea

// FOVEA_CHECK(condition, "format", args...): our own bugs only, never user data. Always on.
#define FOVEA_CHECK(condition, ...)                                                         \
  do {                                                                                      \
    if (!(condition)) [[unlikely]]                                                          \
      ::fovea::check_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
  } while (false)

// The same for hot loops: compiled out of release builds.
#ifdef NDEBUG
#define FOVEA_DCHECK(condition, ...) static_cast<void>(0)
#else
#define FOVEA_DCHECK(condition, ...) FOVEA_CHECK(condition, __VA_ARGS__)
#endif
