#include "progress.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

namespace fovea::cli {
namespace {

constexpr std::chrono::milliseconds kPatience(400);

}  // namespace

LoadProgress::LoadProgress(std::ostream& terminal, Clock clock)
    : terminal_(terminal), clock_(std::move(clock)), start_(clock_()) {}

LoadProgress::~LoadProgress() { wipe(); }

void LoadProgress::update(double fraction) {
  if (fraction >= 1) {
    wipe();
    return;
  }
  if (clock_() - start_ < kPatience) return;
  const int percent = static_cast<int>(100 * std::clamp(fraction, 0.0, 1.0));
  if (percent == shown_percent_) return;
  shown_percent_ = percent;
  terminal_ << fmt::format("\rLoading the model: {:3} %", percent) << std::flush;
}

void LoadProgress::wipe() {
  if (shown_percent_ < 0) return;
  // "Erase to the end of the line": every terminal of the last decades knows it.
  terminal_ << "\r\x1b[K" << std::flush;
  shown_percent_ = -1;
}

}  // namespace fovea::cli
