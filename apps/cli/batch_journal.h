#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "fovea/result.h"

#include "batch_pictures.h"
#include "wire/batch_record.h"

namespace fovea::cli {

/// The file of answers of a batch: one JSON line for each picture and question, in the order in
/// which they came. It is also what a later run goes on from, so a line is written at once and
/// whole; a process that is killed leaves at most a half line at the end, which the next run cuts
/// off. append() and read() may be called from any thread.
class BatchJournal {
 public:
  /// What a batch asks. Refers to all of it.
  struct Plan {
    std::span<const PictureFile> pictures;
    std::span<const SkillRequest> questions;
    const std::string& key;
  };
  enum class Mode {
    kGoOn,       ///< keep the answers that are there
    kBeginAnew,  ///< forget them
    kLook,       ///< change nothing: for a dry run
  };

  /// Opens or makes the file, and finds in it the answers that still hold: those to the plan's
  /// questions whose picture has the size and time of change that it had. Errors of such pictures
  /// and answers about changed ones are taken out; lines about pictures that the plan does not name
  /// stay. Errors: kFailedPrecondition where the file holds answers to other questions or is no
  /// file of answers (it is never touched then) or another process writes it; kIo.
  static Result<BatchJournal> open(const std::filesystem::path& path, const Plan& plan, Mode mode);

  BatchJournal(BatchJournal&& other) noexcept;
  ~BatchJournal();

  /// Whether this question (an index into the plan) is answered.
  bool has(std::size_t picture_idx, std::size_t question_idx) const;
  /// Whether it had no line at all when it was opened, of this plan's pictures or of others.
  bool was_empty() const { return was_empty_; }
  /// Whether it has none now.
  bool is_empty() const {
    const std::lock_guard lock(mutex_);
    return size_bytes_ == 0;
  }
  /// Bytes of a half line that were cut off.
  std::size_t cut_off_bytes() const { return cut_off_bytes_; }

  /// Writes one line. A line that cannot be written whole is not there at all. Errors: kIo.
  Status append(std::size_t picture_idx, std::size_t question_idx, const wire::BatchRecord& record,
                const SkillRequest& skill, wire::TokenIds token_ids);

  /// The answer to this question, where has() says so.
  Result<wire::BatchRecord> read(std::size_t picture_idx, std::size_t question_idx) const;

  /// Waits until everything is on the disk.
  Status flush();

 private:
  struct Line {
    std::int64_t offset = -1;    // -1: there is none
    std::size_t size_bytes = 0;  // without the newline
  };
  struct Scan;

  BatchJournal(std::filesystem::path path, std::size_t num_pictures, std::size_t num_questions);
  Status open_file(Mode mode);
  Status scan(const Plan& plan, Scan& scan);
  Status rewrite(const Scan& scan);
  Result<std::string> read_line(const Line& line) const;

  std::filesystem::path path_;
  std::size_t num_questions_;
  std::vector<Line> lines_;  // [pictures, questions]
  std::int64_t size_bytes_ = 0;
  std::size_t cut_off_bytes_ = 0;
  bool was_empty_ = true;
  int fd_ = -1;
  mutable std::mutex mutex_;
};

}  // namespace fovea::cli
