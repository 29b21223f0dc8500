#pragma once

#include <chrono>
#include <functional>
#include <ostream>

namespace fovea::cli {

/// A line on a terminal that tells how far loading is. It appears only when loading takes long
/// enough to wonder, and wipes itself. One thread.
class LoadProgress {
 public:
  using Clock = std::function<std::chrono::steady_clock::time_point()>;

  /// `terminal` outlives the object.
  explicit LoadProgress(std::ostream& terminal, Clock clock = &std::chrono::steady_clock::now);
  ~LoadProgress();
  LoadProgress(const LoadProgress&) = delete;
  LoadProgress& operator=(const LoadProgress&) = delete;

  /// fraction in [0, 1]; 1 wipes the line.
  void update(double fraction);

 private:
  void wipe();

  std::ostream& terminal_;
  Clock clock_;
  std::chrono::steady_clock::time_point start_;
  int shown_percent_ = -1;
};

}  // namespace fovea::cli
