#pragma once

#include <array>
#include <csignal>

#include "fovea/result.h"

namespace fovea::cli {

/// While it lives, the first SIGINT, SIGTERM or SIGHUP is a request to stop instead of the end; a
/// second one of the same kind is the end. What was ignored stays ignored. SIGXFSZ becomes an error
/// of write(). One at a time in a process.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  /// Sleeps until a signal or wake() comes or the time is over (-1: never). Returns the signal that
  /// has come meanwhile or before, or 0.
  int wait(int timeout_ms);
  /// Ends a wait(). From any thread.
  void wake();

 private:
  static constexpr std::array kStops = {SIGINT, SIGTERM, SIGHUP};

  std::array<int, 2> pipe_ = {-1, -1};
  std::array<struct sigaction, kStops.size()> old_ = {};
  struct sigaction old_file_size_ = {};
  int signal_ = 0;
};

}  // namespace fovea::cli
