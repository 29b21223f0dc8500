#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <ostream>
#include <string>

namespace fovea::cli {

/// A line on a terminal that tells how far a batch is, how fast it goes and how long it still
/// takes; messages go above it. Where nobody watches, only the messages are written. One thread at
/// a time.
class BatchProgress {
 public:
  using Clock = std::function<std::chrono::steady_clock::time_point()>;

  /// `out` outlives the object. `total` pictures are to do.
  BatchProgress(std::ostream& out, bool is_terminal, std::size_t total,
                Clock clock = &std::chrono::steady_clock::now);
  ~BatchProgress();
  BatchProgress(const BatchProgress&) = delete;
  BatchProgress& operator=(const BatchProgress&) = delete;

  /// One more picture is done with.
  void advance(bool failed);
  /// Shows the time that has passed.
  void redraw();
  /// Writes a line of its own.
  void message(const std::string& text);
  /// Takes the line away.
  void wipe();

 private:
  std::string line() const;

  std::ostream& out_;
  bool is_terminal_;
  std::size_t total_, done_ = 0, failed_ = 0;
  Clock clock_;
  std::chrono::steady_clock::time_point start_, drawn_;
  bool is_drawn_ = false;
};

}  // namespace fovea::cli
