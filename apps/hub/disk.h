#pragma once

#include <filesystem>
#include <utility>

#include "fovea/result.h"

namespace fovea::hub {

/// An open file or folder; closed at the end.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();
  int get() const { return fd_; }

 private:
  int fd_;
};

/// "cannot VERB PATH: what the system says", of the last call that failed.
Error system_error(const char* verb, const std::filesystem::path& path);

/// Waits until what a folder lists is on the disk.
Status sync_folder(const std::filesystem::path& folder);

}  // namespace fovea::hub
