#pragma once

#include <cmath>

#include "base/guard.h"

namespace fovea {

/// What a request is told that is given up before its deadline has passed.
inline Error too_late() noexcept {
  return say(ErrorCode::kDeadlineExceeded, "the deadline cannot be met any more");
}

/// How long something takes that differs from time to time: a running mean and the mean distance
/// from it, kept as TCP keeps its round trips (Jacobson 1988).
class TimeEstimate {
 public:
  TimeEstimate() = default;
  /// Begins with a belief. Milliseconds.
  explicit TimeEstimate(double mean_ms, double deviation_ms = 0)
      : mean_ms_(mean_ms), deviation_ms_(deviation_ms) {}

  void learn(double measured_ms) {
    const bool first = mean_ms_ == 0;
    deviation_ms_ += (std::abs(measured_ms - mean_ms_) - deviation_ms_) / 8;
    mean_ms_ += (measured_ms - mean_ms_) / 8;
    if (first) *this = TimeEstimate(measured_ms, measured_ms / 4);
  }
  /// Something was broken off after this long: it would have taken longer. Without this, only what
  /// is quick enough would count.
  void learn_broken_off(double elapsed_ms) {
    if (elapsed_ms > mean_ms_) learn(elapsed_ms);
  }
  /// Something was given up on account of this estimate, so nothing will be measured of it: an
  /// estimate that is much too high comes down all the same, by half a percent each time.
  void doubt() {
    mean_ms_ *= 0.995;
    deviation_ms_ *= 0.995;
  }

  double mean_ms() const { return mean_ms_; }  ///< 0: nothing is known
  /// What is hardly ever exceeded.
  double safe_ms() const { return mean_ms_ + 3 * deviation_ms_; }

 private:
  double mean_ms_ = 0, deviation_ms_ = 0;
};

/// What steps and requests have cost so far; the engine's loop keeps it.
struct StepCosts {
  double crop_ms = 0;             ///< of one crop in the vision encoder
  double row_ms = 0;              ///< of one row of a prompt
  TimeEstimate service;           ///< a request, from admission to its end
  TimeEstimate encoded_service;   ///< one whose picture is encoded for it, from the first crop on
  TimeEstimate pictured_service;  ///< one with a picture, from the first look at that on
};

}  // namespace fovea
