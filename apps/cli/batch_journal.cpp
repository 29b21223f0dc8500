#include "batch_journal.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <functional>
#include <string_view>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "batch_question.h"
#include "files.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
using wire::BatchRecord;

Error journal_error(const fs::path& path, const char* verb, int error_number) {
  return Error{ErrorCode::kIo, fmt::format("cannot {} {}: {}", verb, path.string(),
                                           std::system_category().message(error_number))};
}

// Zero, or the error number.
int write_whole(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

// The lines of a file from its beginning, with the offset of each.
class LineReader {
 public:
  LineReader(int fd, const fs::path& path) : fd_(fd), path_(path) {}

  /// Calls `on_line` with each line that ends in a newline; what remains is rest().
  Status for_each(const std::function<Status(std::int64_t, std::string_view)>& on_line) {
    std::array<char, std::size_t{256} << 10> chunk;
    for (;;) {
      const ssize_t count = ::pread(fd_, chunk.data(), chunk.size(),
                                    offset_ + static_cast<std::int64_t>(rest_.size()));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return journal_error(path_, "read", errno);
      if (count == 0) return {};
      std::size_t searched = rest_.size();
      rest_.append(chunk.data(), static_cast<std::size_t>(count));
      std::size_t begin = 0;
      for (std::size_t end = 0; (end = rest_.find('\n', searched)) != std::string::npos;) {
        const std::string_view line = std::string_view(rest_).substr(begin, end - begin);
        if (Status status = on_line(offset_ + static_cast<std::int64_t>(begin), line);
            !status.ok()) {
          return status;
        }
        begin = searched = end + 1;
      }
      rest_.erase(0, begin);
      offset_ += static_cast<std::int64_t>(begin);
      if (rest_.size() > wire::kMaxBatchLine) {
        return refused(
            fmt::format("{} is no file of a batch's answers: a line of it has more than "
                        "{} bytes",
                        path_.string(), wire::kMaxBatchLine));
      }
    }
  }
  std::int64_t offset() const { return offset_; }
  const std::string& rest() const { return rest_; }

 private:
  int fd_;
  const fs::path& path_;
  std::int64_t offset_ = 0;  // of rest_
  std::string rest_;
};

std::string question_of(std::string_view skill, std::string_view text) {
  return text.empty() ? std::string(skill) : fmt::format("{} \"{}\"", skill, text);
}

}  // namespace

// What is found while the file is read.
struct BatchJournal::Scan {
  explicit Scan(const BatchJournal::Plan& the_plan) : plan(the_plan) {
    for (std::size_t i = 0; i < plan.pictures.size(); ++i) pictures[plan.pictures[i].path] = i;
    for (std::size_t i = 0; i < plan.questions.size(); ++i)
      questions[text_of(plan.questions[i])] = i;
  }
  const Plan& plan;
  std::unordered_map<std::string_view, std::size_t> pictures;
  std::unordered_map<std::string, std::size_t> questions;
  std::vector<Line> foreign;  // about pictures that the plan does not name
  std::size_t num_lines = 0;
  bool has_outdated = false;  // errors, and answers about pictures as they were
};

BatchJournal::BatchJournal(fs::path path, std::size_t num_pictures, std::size_t num_questions)
    : path_(std::move(path)), num_questions_(num_questions), lines_(num_pictures * num_questions) {}

BatchJournal::BatchJournal(BatchJournal&& other) noexcept
    : path_(std::move(other.path_)),
      num_questions_(other.num_questions_),
      lines_(std::move(other.lines_)),
      size_bytes_(other.size_bytes_),
      cut_off_bytes_(other.cut_off_bytes_),
      was_empty_(other.was_empty_),
      fd_(std::exchange(other.fd_, -1)) {}

BatchJournal::~BatchJournal() {
  if (fd_ >= 0) ::close(fd_);
}

Status BatchJournal::open_file(Mode mode) {
  const int flags = mode == Mode::kLook ? O_RDONLY : O_RDWR | O_CREAT;
  fd_ = ::open(path_.c_str(), flags | O_CLOEXEC, 0666);
  if (fd_ < 0 && errno == ENOENT && mode == Mode::kLook) return {};
  if (fd_ < 0) return journal_error(path_, "open", errno);
  struct stat status = {};
  if (::fstat(fd_, &status) != 0) return journal_error(path_, "read", errno);
  if (!S_ISREG(status.st_mode)) return refused(fmt::format("{} is no file", path_.string()));
  if (mode == Mode::kLook) return {};
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return journal_error(path_, "lock", errno);
    return refused(fmt::format("another process writes {}", path_.string()));
  }
  return {};
}

Status BatchJournal::scan(const Plan& plan, Scan& scan) {
  LineReader reader(fd_, path_);
  const auto take = [&](std::int64_t offset, std::string_view text) -> Status {
    ++scan.num_lines;
    Result<BatchRecord> record = wire::parse_batch_record(text);
    if (!record.ok()) {
      return refused(fmt::format("{}, line {}: {}; give another --out", path_.string(),
                                 scan.num_lines, record.error().message));
    }
    const Line line{offset, text.size()};
    const auto question = scan.questions.find(record->text);
    const bool asked = question != scan.questions.end() &&
                       record->skill == wire::skill_name(plan.questions.front());
    if (!asked || record->key != plan.key) {
      return refused(fmt::format(
          "{} holds answers {} (line {}): give another --out, or --overwrite to begin anew",
          path_.string(),
          asked ? "with other options or of another model"
                : "to another question, " + question_of(record->skill, record->text),
          scan.num_lines));
    }
    const auto picture = scan.pictures.find(record->path);
    if (picture == scan.pictures.end()) {
      scan.foreign.push_back(line);
      return {};
    }
    const PictureFile& file = plan.pictures[picture->second];
    Line& place = lines_[picture->second * num_questions_ + question->second];
    const bool holds = record->answer.ok() && record->size_bytes == file.size_bytes &&
                       record->modified_ms == file.modified_ms;
    if (!holds || place.offset >= 0) scan.has_outdated = true;
    if (holds) place = line;
    return {};
  };
  if (Status status = reader.for_each(take); !status.ok()) return status;
  // A half line of ours begins as a whole one does; anything else is somebody's file.
  const std::string_view start =
      wire::kBatchLineStart.substr(0, std::min(wire::kBatchLineStart.size(), reader.rest().size()));
  if (!reader.rest().starts_with(start)) {
    return refused(
        fmt::format("{} is no file of a batch's answers; give another --out", path_.string()));
  }
  cut_off_bytes_ = reader.rest().size();
  size_bytes_ = reader.offset();
  return {};
}

Result<std::string> BatchJournal::read_line(const Line& line) const {
  std::string text(line.size_bytes, '\0');
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t count = ::pread(fd_, text.data() + done, text.size() - done,
                                  line.offset + static_cast<std::int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return journal_error(path_, "read", count < 0 ? errno : EIO);
    done += static_cast<std::size_t>(count);
  }
  return text;
}

// The lines that hold go to a neighbour that then takes the name: a kill meanwhile loses nothing.
Status BatchJournal::rewrite(const Scan& scan) {
  std::error_code error;
  const fs::path target = fs::canonical(path_, error);
  fs::path part = (error ? path_ : target);
  part.replace_filename(fmt::format(".{}.{}.part", part.filename().string(), ::getpid()));
  const int fd = ::open(part.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return journal_error(path_, "write", errno);
  int failure = ::flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;

  std::int64_t written = 0;
  const auto copy = [&](const Line& line) -> Result<Line> {
    Result<std::string> text = read_line(line);
    if (!text.ok()) return std::move(text).error();
    const Line copied{written, text->size()};
    *text += '\n';
    written += static_cast<std::int64_t>(text->size());
    if (const int number = write_whole(fd, *text); number != 0) {
      return journal_error(path_, "write", number);
    }
    return copied;
  };
  Status status;
  // In the order of the old file, which is that of the offsets.
  std::vector<std::pair<std::int64_t, Line*>> kept;
  std::vector<Line> foreign = scan.foreign;
  kept.reserve(foreign.size() + lines_.size());
  for (Line& line : foreign) kept.emplace_back(line.offset, &line);
  for (Line& line : lines_) {
    if (line.offset >= 0) kept.emplace_back(line.offset, &line);
  }
  std::ranges::sort(kept);
  for (std::size_t i = 0; i < kept.size() && status.ok() && failure == 0; ++i) {
    const Result<Line> copied = copy(*kept[i].second);
    if (copied.ok()) {
      *kept[i].second = *copied;
    } else {
      status = copied.error();
    }
  }
  if (status.ok() && failure == 0 && ::fsync(fd) != 0) failure = errno;
  if (status.ok() && failure == 0 && ::rename(part.c_str(), target.c_str()) != 0) failure = errno;
  if (!status.ok() || failure != 0) {
    ::close(fd);
    ::unlink(part.c_str());
    return status.ok() ? journal_error(path_, "write", failure) : status;
  }
  ::close(std::exchange(fd_, fd));
  size_bytes_ = written;
  return {};
}

Result<BatchJournal> BatchJournal::open(const fs::path& path, const Plan& plan, Mode mode) {
  BatchJournal journal(path, plan.pictures.size(), plan.questions.size());
  if (Status status = journal.open_file(mode); !status.ok()) return status.error();
  if (journal.fd_ < 0) return journal;

  Scan scan(plan);
  Status status = journal.scan(plan, scan);
  if (mode == Mode::kBeginAnew) {
    // Only what this program wrote is thrown away.
    std::string start(wire::kBatchLineStart.size(), '\0');
    const ssize_t count = ::pread(journal.fd_, start.data(), start.size(), 0);
    start.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    if (!wire::kBatchLineStart.starts_with(start)) {
      return refused(
          fmt::format("{} is no file of a batch's answers; give another --out", path.string()));
    }
    std::ranges::fill(journal.lines_, Line{});
    journal.size_bytes_ = 0;
    journal.cut_off_bytes_ = 0;
    if (::ftruncate(journal.fd_, 0) != 0) return journal_error(path, "write", errno);
  } else {
    if (!status.ok()) return status.error();
    journal.was_empty_ = scan.num_lines == 0;
    if (mode == Mode::kLook) return journal;
    if (scan.has_outdated) {
      if (status = journal.rewrite(scan); !status.ok()) return status.error();
    } else if (journal.cut_off_bytes_ > 0 && ::ftruncate(journal.fd_, journal.size_bytes_) != 0) {
      return journal_error(path, "write", errno);
    }
  }
  if (::lseek(journal.fd_, journal.size_bytes_, SEEK_SET) < 0)
    return journal_error(path, "write", errno);
  return journal;
}

bool BatchJournal::has(std::size_t picture_idx, std::size_t question_idx) const {
  const std::lock_guard lock(mutex_);
  return lines_[picture_idx * num_questions_ + question_idx].offset >= 0;
}

Status BatchJournal::append(std::size_t picture_idx, std::size_t question_idx,
                            const BatchRecord& record, const SkillRequest& skill,
                            wire::TokenIds token_ids) {
  const std::string text = wire::batch_record_json(record, skill, token_ids) + '\n';
  const std::lock_guard lock(mutex_);
  if (const int failure = write_whole(fd_, text); failure != 0) {
    // What of the line did get written goes again, so that the file stays one of whole lines.
    if (::ftruncate(fd_, size_bytes_) != 0 || ::lseek(fd_, size_bytes_, SEEK_SET) < 0) {
      return journal_error(path_, "cut a half line off", errno);
    }
    return journal_error(path_, "write", failure);
  }
  // An error is no answer: the next run asks again.
  if (record.answer.ok()) {
    lines_[picture_idx * num_questions_ + question_idx] = {size_bytes_, text.size() - 1};
  }
  size_bytes_ += static_cast<std::int64_t>(text.size());
  return {};
}

Result<BatchRecord> BatchJournal::read(std::size_t picture_idx, std::size_t question_idx) const {
  Line line;
  {
    const std::lock_guard lock(mutex_);
    line = lines_[picture_idx * num_questions_ + question_idx];
  }
  Result<std::string> text = read_line(line);
  if (!text.ok()) return std::move(text).error();
  return wire::parse_batch_record(*text);
}

Status BatchJournal::flush() {
  if (::fsync(fd_) != 0 && errno != EINVAL) return journal_error(path_, "write", errno);
  return {};
}

}  // namespace fovea::cli
