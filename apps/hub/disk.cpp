#include "hub/disk.h"

#include <cerrno>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>

#include "base/error.h"

namespace fovea::hub {

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

Error system_error(const char* verb, const std::filesystem::path& path) {
  const int number = errno;
  return error(number == ENOSPC ? ErrorCode::kResourceExhausted : ErrorCode::kIo,
               "cannot {} {}: {}", verb, path.string(), std::system_category().message(number));
}

Status sync_folder(const std::filesystem::path& folder) {
  const Descriptor opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Some file systems cannot do this, and say EINVAL.
  if (opened.get() < 0 || (::fsync(opened.get()) != 0 && errno != EINVAL)) {
    return system_error("write", folder);
  }
  return {};
}

}  // namespace fovea::hub
