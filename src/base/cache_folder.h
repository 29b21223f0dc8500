#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>

namespace fovea {

/// The folder for what a machine need not find out twice: $FOVEA_CACHE_DIR, else fovea in
/// $XDG_CACHE_HOME, else .cache/fovea at home. Nothing when $FOVEA_CACHE_DIR is set and empty, or
/// there is no home. It may not be there yet.
inline std::optional<std::filesystem::path> cache_folder() {
  if (const char* own = std::getenv("FOVEA_CACHE_DIR")) {
    if (*own == '\0') return std::nullopt;
    return own;
  }
  if (const char* caches = std::getenv("XDG_CACHE_HOME"); caches != nullptr && *caches == '/') {
    return std::filesystem::path(caches) / "fovea";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return std::filesystem::path(home) / ".cache" / "fovea";
  }
  return std::nullopt;
}

}  // namespace fovea
