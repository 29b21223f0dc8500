#include "files.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxSchemaBytes = std::size_t{1} << 20;

Error io_error(const fs::path& path, const char* verb, int error_number) {
  const ErrorCode code = error_number == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo;
  return Error{code, fmt::format("cannot {} {}: {}", verb, path.string(),
                                 std::system_category().message(error_number))};
}

Error too_large(const std::string& what, std::size_t max_bytes) {
  return Error{ErrorCode::kResourceExhausted,
               fmt::format("{} than the limit of {} bytes", what, max_bytes)};
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  bool close() { return ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_;
};

// While a file is being written these would end the process and leave a part of it behind. Writing
// takes milliseconds, so they are ignored rather than postponed; SIGXFSZ becomes an error of
// write().
class IgnoredSignals {
 public:
  IgnoredSignals() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      struct sigaction ignore = {};
      ignore.sa_handler = SIG_IGN;
      ::sigaction(kSignals[i], &ignore, &old_[i]);
    }
  }
  IgnoredSignals(const IgnoredSignals&) = delete;
  IgnoredSignals& operator=(const IgnoredSignals&) = delete;
  ~IgnoredSignals() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &old_[i], nullptr);
  }

 private:
  static constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP, SIGXFSZ};
  std::array<struct sigaction, kSignals.size()> old_ = {};
};

// Zero, or the error number of the first call that failed.
int write_all(FileDescriptor& file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  // Some file systems only notice here that there is no room.
  if (::fsync(file.get()) != 0 && errno != EINVAL) return errno;
  return file.close() ? 0 : errno;
}

// Where the bytes really belong: a link stays a link, its target is replaced.
fs::path final_target(const fs::path& path) {
  std::error_code error;
  const fs::path target = fs::canonical(path, error);
  return error ? path : target;
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace

Error refused(std::string message) {
  return Error{ErrorCode::kFailedPrecondition, std::move(message)};
}

Result<std::vector<std::byte>> read_file(const fs::path& path, std::size_t max_bytes) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return io_error(path, "open", errno);
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) return io_error(path, "read", errno);
  if (S_ISDIR(status.st_mode)) return io_error(path, "read", EISDIR);
  if (S_ISREG(status.st_mode) && static_cast<std::size_t>(status.st_size) > max_bytes) {
    return too_large(fmt::format("{} has {} bytes, more", path.string(), status.st_size),
                     max_bytes);
  }

  // Pipes and devices tell no size, and files may grow: the limit holds for what is really read.
  std::vector<std::byte> bytes;
  bytes.reserve(static_cast<std::size_t>(std::max<off_t>(status.st_size, 0)) + 1);
  std::array<std::byte, std::size_t{64} << 10> chunk;
  for (;;) {
    const ssize_t count = ::read(file.get(), chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return io_error(path, "read", errno);
    if (count == 0) return bytes;
    bytes.insert(bytes.end(), chunk.begin(), chunk.begin() + count);
    if (bytes.size() > max_bytes) return too_large(path.string() + " is larger", max_bytes);
  }
}

Result<std::string> read_schema(const std::string& given) {
  const std::size_t begin = given.find_first_not_of(" \t\r\n");
  if (begin != std::string::npos && given[begin] == '{') return given;
  Result<std::vector<std::byte>> bytes = read_file(given, kMaxSchemaBytes);
  if (!bytes.ok()) return std::move(bytes).error();
  return std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size());
}

Result<std::vector<std::byte>> read_stream(std::istream& in, std::size_t max_bytes) {
  std::vector<std::byte> bytes;
  std::array<char, std::size_t{64} << 10> chunk;
  while (in) {
    in.read(chunk.data(), chunk.size());
    const auto* begin = reinterpret_cast<const std::byte*>(chunk.data());
    bytes.insert(bytes.end(), begin, begin + in.gcount());
    if (bytes.size() > max_bytes) return too_large("standard input is larger", max_bytes);
  }
  if (in.bad()) return Error{ErrorCode::kIo, "cannot read standard input"};
  return bytes;
}

Status check_writable(const fs::path& path) {
  const fs::path target = final_target(path);
  std::error_code error;
  const fs::file_status status = fs::status(target, error);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("cannot write {}: it exists and is no file", path.string())};
  }
  // It would be replaced, not written to, so that the system alone would not stand in the way.
  if (fs::exists(status) && ::access(target.c_str(), W_OK) != 0) {
    return io_error(path, "write", errno);
  }
  const fs::path folder = folder_of(target);
  if (fs::exists(folder, error) && !fs::is_directory(folder, error)) {
    return io_error(path, "write", ENOTDIR);
  }
  if (::access(folder.c_str(), W_OK | X_OK) != 0) return io_error(path, "write", errno);
  return {};
}

Status write_file(const fs::path& path, std::span<const std::byte> bytes) {
  const IgnoredSignals ignored;
  return replace_file(path, bytes);
}

Status replace_file(const fs::path& path, std::span<const std::byte> bytes) {
  const fs::path target = final_target(path);
  const fs::path part =
      folder_of(target) / fmt::format(".{}.{}.part", target.filename().string(), ::getpid());
  FileDescriptor file(::open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (file.get() < 0) return io_error(path, "write", errno);
  int failure = write_all(file, bytes);
  if (failure == 0 && ::rename(part.c_str(), target.c_str()) != 0) failure = errno;
  if (failure == 0) return {};
  ::unlink(part.c_str());
  return io_error(path, "write", failure);
}

}  // namespace fovea::cli
