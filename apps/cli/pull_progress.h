#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <ostream>
#include <string>

#include "hub/retry.h"

namespace fovea::cli {

/// Shows how far a download is. On a terminal: one line with bytes, rate and time left, written
/// anew several times a second. In a pipe: a line for each tenth. One thread.
class PullProgress {
 public:
  using Clock = std::function<std::chrono::steady_clock::time_point()>;

  /// `out` outlives the object.
  PullProgress(std::ostream& out, bool is_terminal, Clock clock = &std::chrono::steady_clock::now);
  ~PullProgress();
  PullProgress(const PullProgress&) = delete;
  PullProgress& operator=(const PullProgress&) = delete;

  /// Something happened that stays to be read.
  void line(const std::string& text);
  void update(const hub::PullEvents::Progress& progress);

 private:
  struct Sample {
    std::chrono::steady_clock::time_point time;
    std::uint64_t received;
  };
  std::string describe(const hub::PullEvents::Progress& progress);
  void wipe();

  std::ostream& out_;
  bool is_terminal_;
  Clock clock_;
  std::deque<Sample> samples_;  // of the last seconds: what the rate is read off
  std::chrono::steady_clock::time_point shown_at_;
  bool is_shown_ = false;
  int tenths_ = 0;
};

}  // namespace fovea::cli
