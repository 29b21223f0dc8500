#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "hub/transport.h"

namespace fovea::hub {

/// How often and how patiently a failed request is tried again.
struct RetryPolicy {
  int retries = 5;  ///< in a row, without a byte in between
  std::chrono::milliseconds first_wait{1'000};
  std::chrono::milliseconds longest_wait{60'000};
  /// Waits; tests have one that does not.
  std::function<void(std::chrono::milliseconds)> wait;
};

/// What a pull tells while it runs. Both may be empty. Called on the pulling thread.
struct PullEvents {
  struct Progress {
    std::string file;
    std::uint64_t done = 0;      ///< bytes of all files that are here
    std::uint64_t total = 0;     ///< bytes of all files
    std::uint64_t received = 0;  ///< bytes that came over the network in this run
  };
  std::function<void(const Progress&)> on_progress;
  std::function<void(const std::string& line)> on_line;

  void say(const std::string& line) const {
    if (on_line) on_line(line);
  }
};

/// Counts the tries of one request, and waits between them: longer each time, as long as the server
/// asks for (Retry-After), but never longer than the policy's longest wait.
class Retrier {
 public:
  Retrier(const RetryPolicy& policy, const PullEvents& events) : policy_(policy), events_(events) {}

  /// Whether to try again; has waited by then. False for outcomes that another try cannot better
  /// and when there were enough tries.
  bool again(const HttpOutcome& outcome);
  /// Something arrived: patience begins anew.
  void reset() { tries_ = 0; }

 private:
  const RetryPolicy& policy_;
  const PullEvents& events_;
  int tries_ = 0;
};

/// Whether the status is one of those that pass: 408, 429, 500, 502, 503, 504.
bool is_passing_status(int status);

/// What an answer other than 2xx means for a person. `what` was asked for ("vikhyatk/moondream2").
Error status_error(const HttpResponse& response, const std::string& what, bool has_token);

}  // namespace fovea::hub
