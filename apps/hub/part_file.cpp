#include "hub/part_file.h"

#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "base/try.h"

namespace fovea::hub {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxEtagBytes = 256;

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || failure != std::errc() || end != text.data() + text.size()) return {};
  return number;
}

// "bytes FIRST-LAST/TOTAL"
struct ContentRange {
  std::uint64_t first = 0;
  std::optional<std::uint64_t> total;
};

std::optional<ContentRange> parse_content_range(std::string_view text) {
  constexpr std::string_view kUnit = "bytes ";
  const std::size_t dash = text.find('-');
  const std::size_t slash = text.find('/');
  if (!text.starts_with(kUnit) || dash == std::string_view::npos || slash == std::string_view::npos)
    return {};
  const auto first = parse_number(text.substr(kUnit.size(), dash - kUnit.size()));
  if (!first) return {};
  return ContentRange{*first, parse_number(text.substr(slash + 1))};
}

// A tag that stands for bytes, not just for meaning, and that fits into a header.
bool is_strong_etag(std::string_view etag) {
  if (etag.size() < 3 || etag.size() > kMaxEtagBytes) return false;
  if (etag.front() != '"' || etag.back() != '"') return false;
  return etag.find_first_of("\r\n") == std::string_view::npos;
}

// Hands over everything from the beginning; false when reading fails.
template <class Consume>
bool read_all(int fd, Consume consume) {
  std::vector<std::byte> chunk(kChunkBytes);
  for (off_t offset = 0;;) {
    const ssize_t count = ::pread(fd, chunk.data(), chunk.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return count == 0;
    consume(std::span(chunk).first(static_cast<std::size_t>(count)));
    offset += count;
  }
}

}  // namespace

std::string PartFile::stem(const RemoteFile& file) {
  constexpr std::size_t kDigits = 16;
  return fmt::format(".{}.{}", file.name, file.digest ? file.digest->hex.substr(0, kDigits) : "");
}

PartFile::PartFile(fs::path folder, const RemoteFile& file)
    : folder_(std::move(folder)),
      name_(file.name),
      size_(file.size.value_or(0)),
      digest_(file.digest.value_or(FileDigest{})) {
  path_ = folder_ / (stem(file) + kEnding);
  etag_path_ = path_.string() + ".etag";
}

Result<std::unique_ptr<PartFile>> PartFile::open(const fs::path& folder, const RemoteFile& file) {
  FOVEA_CHECK(file.size && file.digest, "{} has no size or sum", file.name);
  std::unique_ptr<PartFile> part(new PartFile(folder, file));
  part->file_ =
      Descriptor(::open(part->path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (part->file_.get() < 0) return system_error("write", part->path_);
  FOVEA_TRY_STATUS(part->hash_what_is_here());
  return part;
}

Status PartFile::hash_what_is_here() {
  struct stat status = {};
  if (::fstat(file_.get(), &status) != 0) return system_error("read", path_);
  if (static_cast<std::uint64_t>(status.st_size) > size_) return restart();
  hash_ = std::make_unique<DigestStream>(digest_.kind, size_);
  bytes_ = 0;
  const bool read = read_all(file_.get(), [this](std::span<const std::byte> bytes) {
    hash_->update(bytes);
    bytes_ += bytes.size();
  });
  if (!read) return system_error("read", path_);
  const Descriptor etag(::open(etag_path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (etag.get() < 0) return {};
  std::string text(kMaxEtagBytes, '\0');
  const ssize_t count = ::read(etag.get(), text.data(), text.size());
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  if (is_strong_etag(text)) etag_ = std::move(text);
  return {};
}

Status PartFile::keep_etag(const std::string& etag) {
  etag_ = is_strong_etag(etag) ? etag : std::string();
  if (etag_.empty()) {
    ::unlink(etag_path_.c_str());
    return {};
  }
  const Descriptor file(
      ::open(etag_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (file.get() < 0 ||
      ::write(file.get(), etag_.data(), etag_.size()) != static_cast<ssize_t>(etag_.size())) {
    return system_error("write", etag_path_);
  }
  return {};
}

Status PartFile::begin(const HttpResponse& response) {
  if (response.status == 206) {
    const auto range = parse_content_range(response.header("content-range"));
    if (!range || range->first != bytes_ || (range->total && *range->total != size_)) {
      return error(ErrorCode::kIo, "{}: the server sends another part than was asked for", name_);
    }
    return {};
  }
  // All of it, from the beginning: it knows no ranges, or has other bytes than before.
  if (bytes_ > 0) FOVEA_TRY_STATUS(restart());
  const auto length = parse_number(response.header("content-length"));
  if (length && *length != size_) {
    return error(ErrorCode::kIo, "{}: the server sends {} bytes, {} are listed", name_, *length,
                 size_);
  }
  return keep_etag(response.header("etag"));
}

Status PartFile::write(std::span<const std::byte> bytes) {
  if (bytes.size() > size_ - bytes_) {
    return error(ErrorCode::kIo, "{}: the server sends more than the {} bytes that are listed",
                 name_, size_);
  }
  hash_->update(bytes);
  const std::size_t count = bytes.size();
  while (!bytes.empty()) {
    const ssize_t written =
        ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(bytes_));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return system_error("write", path_);
    bytes_ += static_cast<std::uint64_t>(written);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  if (listener_) listener_(count);
  return {};
}

Status PartFile::restart() {
  if (::ftruncate(file_.get(), 0) != 0) return system_error("write", path_);
  ::unlink(etag_path_.c_str());
  etag_.clear();
  hash_ = std::make_unique<DigestStream>(digest_.kind, size_);
  bytes_ = 0;
  return {};
}

Result<bool> PartFile::finish() {
  FOVEA_CHECK(is_complete(), "{} is not complete", name_);
  if (hash_->finish() != digest_.hex) {
    FOVEA_TRY_STATUS(restart());
    return false;
  }
  if (::fsync(file_.get()) != 0) return system_error("write", path_);
  if (::rename(path_.c_str(), (folder_ / name_).c_str()) != 0) return system_error("name", path_);
  ::unlink(etag_path_.c_str());
  FOVEA_TRY_STATUS(sync_folder(folder_));
  return true;
}

bool has_digest(const fs::path& path, const RemoteFile& file) {
  const Descriptor opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status = {};
  if (opened.get() < 0 || ::fstat(opened.get(), &status) != 0 || !S_ISREG(status.st_mode) ||
      static_cast<std::uint64_t>(status.st_size) != file.size || !file.digest) {
    return false;
  }
  DigestStream hash(file.digest->kind, *file.size);
  const bool read =
      read_all(opened.get(), [&hash](std::span<const std::byte> bytes) { hash.update(bytes); });
  return read && hash.finish() == file.digest->hex;
}

}  // namespace fovea::hub
