#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "fovea/engine.h"
#include "fovea/result.h"

#include "args.h"
#include "batch_journal.h"
#include "batch_pictures.h"
#include "batch_progress.h"
#include "batch_side_files.h"
#include "batch_stop.h"

namespace fovea::cli {

/// What became of a batch.
struct BatchOutcome {
  std::size_t num_answered = 0;  ///< pictures, of those that were to do
  std::size_t num_failed = 0;
  int signal = 0;                ///< that stopped it
  std::optional<Error> failure;  ///< that stopped it: the disk is full, the device is gone
};

/// Asks the engine about pictures, several at a time, and writes each answer as it comes. Each
/// picture in hand has a thread that reads its file, waits for the engine and writes; the threads
/// are so many that the engine always has requests waiting, and together hold 256 MiB of files at
/// most (or one file).
class BatchRun {
 public:
  /// All of it outlives the object. `todo` are indices of pictures; the engine may be null when
  /// their questions are all answered and only side files are missing.
  struct Parts {
    const BatchArgs& args;
    std::span<const PictureFile> pictures;
    std::span<const std::size_t> todo;
    const std::string& key;
    BatchJournal& journal;
    const BatchSideFiles& side_files;
    BatchProgress& progress;
    Engine* engine;
  };
  explicit BatchRun(const Parts& parts) : parts_(parts) {}

  /// Returns when all is done or something stopped it. After a signal, requests that are still in
  /// the engine are cancelled; answers that have come are written.
  BatchOutcome run(StopSignal& stop);

  /// How many pictures are in hand at once for an engine with these options.
  static std::size_t pictures_in_hand(int max_sequences, std::size_t num_questions);

 private:
  class FileBudget;
  void work(StopSignal& stop);
  std::optional<std::size_t> next();
  void process(std::size_t picture_idx);
  std::vector<std::size_t> open_questions(std::size_t picture_idx) const;
  std::vector<Result<Response>> ask(const Picture& picture, std::span<const std::size_t> questions);
  Status write_answers(std::size_t picture_idx, const Picture& picture,
                       std::span<const std::size_t> questions, std::span<Result<Response>> answers);
  Status write_error(std::size_t picture_idx, const Error& error);
  Status write_side_files(std::size_t picture_idx, const Image* image, BatchSideFiles::Which which);
  void report(const PictureFile& file, const Error& error);
  void count(bool failed);
  void stop_all(std::optional<Error> failure);
  bool is_stopped() const { return stopped_.load(); }

  Parts parts_;
  BatchOutcome outcome_;
  std::atomic<bool> stopped_ = false;
  mutable std::mutex mutex_;  // guards all below, the outcome and the progress
  std::condition_variable budget_changed_;
  std::size_t next_idx_ = 0, num_working_ = 0;
  std::uint64_t bytes_in_hand_ = 0;
  std::unordered_set<std::uint64_t> in_engine_;
};

}  // namespace fovea::cli
