#include "hub/retry.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>

#include "base/error.h"

namespace fovea::hub {
namespace {

// Seconds; the form with a date is not used by hubs.
std::chrono::milliseconds asked_wait(const HttpResponse& response) {
  const std::string text = response.header("retry-after");
  int seconds = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  const bool whole = failure == std::errc() && end == text.data() + text.size() && seconds > 0;
  return std::chrono::seconds(whole ? std::min(seconds, 3600) : 0);
}

}  // namespace

bool is_passing_status(int status) {
  switch (status) {
    case 408:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      return true;
    default:
      return false;
  }
}

bool Retrier::again(const HttpOutcome& outcome) {
  const bool broken = !outcome.status.ok();
  if (broken ? !outcome.worth_retrying : !is_passing_status(outcome.response.status)) return false;
  if (tries_ >= policy_.retries) return false;
  std::chrono::milliseconds wait = policy_.first_wait * (1LL << std::min(tries_, 16));
  wait = std::min(std::max(wait, asked_wait(outcome.response)), policy_.longest_wait);
  ++tries_;
  const std::string reason = broken ? outcome.status.error().message
                                    : fmt::format("the server says {}", outcome.response.status);
  events_.say(fmt::format("{}; try {} of {} in {:.1f} s", reason, tries_, policy_.retries,
                          static_cast<double>(wait.count()) / 1000));
  if (policy_.wait && wait.count() > 0) policy_.wait(wait);
  return true;
}

Error status_error(const HttpResponse& response, const std::string& what, bool has_token) {
  const std::string code = response.header("x-error-code");
  switch (response.status) {
    case 401:
    case 403:
      if (!has_token) {
        return error(
            ErrorCode::kFailedPrecondition,
            "the hub does not hand out {} (status {}): the name is wrong, or it is private "
            "or gated; for those accept the terms on its page, and give an access token "
            "with --token-file",
            what, response.status);
      }
      return error(ErrorCode::kFailedPrecondition,
                   "the hub does not hand out {} to this access token (status {}): the name is "
                   "wrong, or the terms on its page are not accepted yet",
                   what, response.status);
    case 404:
      if (code == "RevisionNotFound") {
        return error(ErrorCode::kNotFound, "the hub has no such revision: {}", what);
      }
      return error(ErrorCode::kNotFound, "the hub has no {}", what);
    case 429:
      return error(ErrorCode::kOverloaded, "the hub says that we ask too often for {}; try later",
                   what);
    default:
      return error(ErrorCode::kIo, "the server answers {} to {}", response.status, what);
  }
}

}  // namespace fovea::hub
