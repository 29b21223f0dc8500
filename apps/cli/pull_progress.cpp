#include "pull_progress.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <utility>

#include "hub/human.h"

namespace fovea::cli {
namespace {

constexpr std::chrono::milliseconds kBetweenLines(200);
constexpr std::chrono::seconds kRateWindow(10);

std::string human_time(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::ceil(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

}  // namespace

PullProgress::PullProgress(std::ostream& out, bool is_terminal, Clock clock)
    : out_(out), is_terminal_(is_terminal), clock_(std::move(clock)) {}

PullProgress::~PullProgress() { wipe(); }

void PullProgress::line(const std::string& text) {
  wipe();
  out_ << text << '\n' << std::flush;
}

void PullProgress::update(const hub::PullEvents::Progress& progress) {
  const auto now = clock_();
  const bool is_due = !is_shown_ || now - shown_at_ >= kBetweenLines;
  const bool is_last = progress.done == progress.total;
  if (samples_.empty() || is_due || is_last) samples_.push_back({now, progress.received});
  while (samples_.size() > 2 && now - samples_.front().time > kRateWindow) samples_.pop_front();
  if (!is_terminal_) {
    const int tenths =
        progress.total == 0 ? 0 : static_cast<int>(10 * progress.done / progress.total);
    if (tenths > tenths_) line(describe(progress));
    tenths_ = tenths;
    return;
  }
  if (!is_due && !is_last) return;
  out_ << '\r' << describe(progress) << "\x1b[K" << std::flush;
  shown_at_ = now;
  is_shown_ = true;
}

std::string PullProgress::describe(const hub::PullEvents::Progress& progress) {
  std::string text = fmt::format("{:3} %  {} of {}",
                                 progress.total == 0 ? 100 : 100 * progress.done / progress.total,
                                 hub::human_bytes(progress.done), hub::human_bytes(progress.total));
  const std::chrono::duration<double> span = samples_.back().time - samples_.front().time;
  const std::uint64_t bytes = samples_.back().received - samples_.front().received;
  if (span.count() <= 0 || bytes == 0) return text;
  const double rate = static_cast<double>(bytes) / span.count();
  text += fmt::format("  {}/s", hub::human_bytes(static_cast<std::uint64_t>(rate)));
  if (progress.done == progress.total) return text;
  return text + fmt::format("  {} left",
                            human_time(static_cast<double>(progress.total - progress.done) / rate));
}

void PullProgress::wipe() {
  if (!is_shown_) return;
  // "Erase to the end of the line": every terminal of the last decades knows it.
  out_ << "\r\x1b[K" << std::flush;
  is_shown_ = false;
}

}  // namespace fovea::cli
