#include "batch_progress.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fmt/format.h>
#include <utility>

namespace fovea::cli {
namespace {

constexpr std::chrono::milliseconds kInterval(100);
constexpr std::size_t kBarWidth = 24;

// 0:07, 12:34, 1:02:03
std::string clock_time(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::lround(std::min(seconds, 1e9)));
  const std::int64_t hours = whole / 3600, minutes = whole / 60 % 60;
  if (hours == 0) return fmt::format("{}:{:02}", minutes, whole % 60);
  return fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60);
}

}  // namespace

BatchProgress::BatchProgress(std::ostream& out, bool is_terminal, std::size_t total, Clock clock)
    : out_(out),
      is_terminal_(is_terminal),
      total_(total),
      clock_(std::move(clock)),
      start_(clock_()),
      drawn_(start_) {}

BatchProgress::~BatchProgress() { wipe(); }

void BatchProgress::advance(bool failed) {
  ++done_;
  if (failed) ++failed_;
  // A fast batch would otherwise spend its time on the terminal.
  if (!is_drawn_ || clock_() - drawn_ >= kInterval) redraw();
}

void BatchProgress::redraw() {
  if (!is_terminal_) return;
  drawn_ = clock_();
  is_drawn_ = true;
  out_ << '\r' << line() << "\x1b[K" << std::flush;
}

void BatchProgress::message(const std::string& text) {
  const bool was_drawn = is_drawn_;
  wipe();
  out_ << text << '\n' << std::flush;
  if (was_drawn) redraw();
}

void BatchProgress::wipe() {
  if (!is_drawn_) return;
  out_ << "\r\x1b[K" << std::flush;
  is_drawn_ = false;
}

std::string BatchProgress::line() const {
  const std::size_t total = std::max<std::size_t>(total_, 1);
  const std::size_t filled = kBarWidth * done_ / total;
  std::string text =
      fmt::format("[{:=<{}}{: <{}}] {}/{}", "", filled, "", kBarWidth - filled, done_, total_);
  const double seconds = std::chrono::duration<double>(clock_() - start_).count();
  if (done_ > 0 && seconds > 0) {
    const double each_s = seconds / static_cast<double>(done_);
    text += each_s <= 1 ? fmt::format("  {:.1f}/s", 1 / each_s)
                        : fmt::format("  {:.1f} s each", each_s);
    text += fmt::format("  {} left", clock_time(each_s * static_cast<double>(total_ - done_)));
  }
  if (failed_ > 0) text += fmt::format("  {} failed", failed_);
  return text;
}

}  // namespace fovea::cli
