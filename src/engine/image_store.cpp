#include "engine/image_store.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <fcntl.h>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/try.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".embeddings";
constexpr std::string_view kUnfinishedPrefix = "unfinished-";

// An open file; -1 for none.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int get() const { return number_; }
  bool ok() const { return number_ >= 0; }

 private:
  int number_;
};

Error io_error(std::string_view doing, const fs::path& path, int cause) {
  return error(ErrorCode::kIo, "cannot {} {}: {}", doing, path.string(),
               std::generic_category().message(cause));
}

bool read_all(int file, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::read(file, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return true;
}

bool write_all(int file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(file, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return true;
}

// The time of last use is kept as the time of modification: many systems do not record reading.
// Given in full, as the kernel's own time stamps are some milliseconds apart.
void mark_used(int file) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const timespec times[2] = {now, now};
  ::futimens(file, times);  // not ours to change: then it counts as old
}

struct StoredFile {
  fs::path path;
  std::uint64_t size_bytes = 0;
  std::pair<std::int64_t, std::int64_t> used;  // seconds, nanoseconds
};

// Everything in the folder with a name of ours; what other processes remove meanwhile is left out.
std::vector<StoredFile> stored_files(const fs::path& folder) {
  std::vector<StoredFile> files;
  std::error_code failure;
  for (fs::directory_iterator it(folder, failure), end; !failure && it != end;
       it.increment(failure)) {
    struct stat status {};
    if (it->path().extension() != kSuffix || ::lstat(it->path().c_str(), &status) != 0 ||
        !S_ISREG(status.st_mode)) {
      continue;
    }
    files.push_back({it->path(),
                     static_cast<std::uint64_t>(status.st_size),
                     {status.st_mtim.tv_sec, status.st_mtim.tv_nsec}});
  }
  return files;
}

// A process locks the file that it writes; one that nobody holds was left by a process that died.
void remove_unfinished(const fs::path& folder) {
  std::error_code failure;
  for (fs::directory_iterator it(folder, failure), end; !failure && it != end;
       it.increment(failure)) {
    if (!it->path().filename().string().starts_with(kUnfinishedPrefix)) continue;
    const Descriptor file(
        ::open(it->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (file.ok() && ::flock(file.get(), LOCK_EX | LOCK_NB) == 0) ::unlink(it->path().c_str());
  }
}

// A new file, locked; -1 and errno when there can be none. Whoever opens the folder may remove it
// before it is locked: then it is another.
int create_unfinished(const fs::path& folder, std::string& path) {
  for (;;) {
    path = (folder / kUnfinishedPrefix).string() + "XXXXXX";
    const int file = ::mkostemp(path.data(), O_CLOEXEC);  // for its owner only
    if (file < 0) return file;
    struct stat status {};
    if (::flock(file, LOCK_EX) != 0 || ::fstat(file, &status) != 0) {
      const int cause = errno;
      ::unlink(path.c_str());
      ::close(file);
      errno = cause;
      return -1;
    }
    if (status.st_nlink > 0) return file;
    ::close(file);
  }
}

Status write_whole(const fs::path& folder, const fs::path& path, std::span<const std::byte> bytes) {
  std::string unfinished;
  const Descriptor file(create_unfinished(folder, unfinished));
  if (!file.ok()) return io_error("create a file in", folder, errno);
  if (!write_all(file.get(), bytes) || ::fsync(file.get()) != 0) {
    const int cause = errno;
    ::unlink(unfinished.c_str());
    return io_error("write", unfinished, cause);
  }
  mark_used(file.get());
  if (::rename(unfinished.c_str(), path.c_str()) != 0) {
    const int cause = errno;
    ::unlink(unfinished.c_str());
    return io_error("write", path, cause);
  }
  return {};
}

}  // namespace

Result<ImageStore> ImageStore::open(const fs::path& folder, std::string_view fingerprint,
                                    std::size_t max_bytes) {
  std::error_code failure;
  if (!fs::exists(folder, failure)) {
    if (folder.has_parent_path()) fs::create_directories(folder.parent_path(), failure);
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
      return io_error("make the folder", folder, errno);
    }
  }
  if (!fs::is_directory(folder, failure)) {
    return invalid_argument("{} is not a folder for encoded pictures", folder.string());
  }
  if (::access(folder.c_str(), R_OK | W_OK | X_OK) != 0) {
    return io_error("read and write in the folder", folder, errno);
  }
  remove_unfinished(folder);
  ImageStore store(folder, Sha256().update(fingerprint).finish(), max_bytes);
  store.make_room(0);
  return store;
}

fs::path ImageStore::path_of(const ImageIdentity& identity) const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string name;
  for (const std::byte byte : Sha256().update(model_).update(identity).finish()) {
    name += kDigits[std::to_integer<int>(byte) >> 4];
    name += kDigits[std::to_integer<int>(byte) & 15];
  }
  return folder_ / name.append(kSuffix);
}

std::optional<HostEmbeddings> ImageStore::load(const ImageIdentity& identity) const {
  const fs::path path = path_of(identity);
  // Without O_NONBLOCK a pipe of this name would wait for a writer.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file.ok()) return std::nullopt;
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return std::nullopt;
  const auto size_bytes = static_cast<std::uint64_t>(status.st_size);
  std::optional<HostEmbeddings> embeddings;
  if (S_ISREG(status.st_mode) && size_bytes <= max_bytes_) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(size_bytes));
    if (read_all(file.get(), bytes)) {
      embeddings = parse_image_file(std::move(bytes), {identity, model_});
    }
  }
  if (embeddings) {
    mark_used(file.get());
  } else {
    ::unlink(path.c_str());  // at worst what another process has just put in its place
  }
  return embeddings;
}

Status ImageStore::save(const ImageIdentity& identity, const HostEmbeddings& embeddings) const {
  FOVEA_TRY(const std::vector<std::byte> bytes, write_image_file({identity, model_}, embeddings));
  if (bytes.size() > max_bytes_) {
    return error(ErrorCode::kResourceExhausted,
                 "an encoded picture takes {} bytes; the store in {} holds {}", bytes.size(),
                 folder_.string(), max_bytes_);
  }
  make_room(bytes.size());
  return write_whole(folder_, path_of(identity), bytes);
}

// Removes the files that were not used for longest until `size_bytes` more fit. What another
// process removes first is gone as well.
void ImageStore::make_room(std::size_t size_bytes) const {
  std::vector<StoredFile> files = stored_files(folder_);
  std::uint64_t total = size_bytes;
  for (const StoredFile& file : files) total += file.size_bytes;
  if (total <= max_bytes_) return;
  std::sort(files.begin(), files.end(),
            [](const StoredFile& a, const StoredFile& b) { return a.used < b.used; });
  for (const StoredFile& file : files) {
    if (total <= max_bytes_) return;
    if (::unlink(file.path.c_str()) == 0 || errno == ENOENT) total -= file.size_bytes;
  }
}

}  // namespace fovea
