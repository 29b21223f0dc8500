#include "pull_progress.h"

#include <gmock/gmock.h>
#include <sstream>

namespace fovea::cli {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class PullProgressTest : public ::testing::Test {
 protected:
  void pass(int milliseconds) { now_ += std::chrono::milliseconds(milliseconds); }
  std::string take() {
    std::string text = out_.str();
    out_.str({});
    return text;
  }

  std::ostringstream out_;
  std::chrono::steady_clock::time_point now_{};
  PullProgress::Clock clock_ = [this] { return now_; };
};

TEST_F(PullProgressTest, TerminalSeesBytesRateAndTimeLeft) {
  PullProgress progress(out_, /*is_terminal=*/true, clock_);
  progress.update({.file = "w", .done = 0, .total = 4'000'000'000, .received = 0});
  take();
  pass(2000);

  progress.update(
      {.file = "w", .done = 100'000'000, .total = 4'000'000'000, .received = 100'000'000});

  EXPECT_THAT(take(), HasSubstr("2 %  100 MB of 4.00 GB  50.0 MB/s  1 min 18 s left"));
}

TEST_F(PullProgressTest, TerminalIsWrittenAFewTimesASecond) {
  PullProgress progress(out_, /*is_terminal=*/true, clock_);
  progress.update({.file = "w", .done = 1, .total = 100, .received = 1});
  take();
  pass(50);

  progress.update({.file = "w", .done = 2, .total = 100, .received = 2});
  EXPECT_EQ(take(), "");

  pass(200);
  progress.update({.file = "w", .done = 3, .total = 100, .received = 3});
  EXPECT_THAT(take(), HasSubstr("3 %"));
}

TEST_F(PullProgressTest, RateIsThatOfTheLastSeconds) {
  PullProgress progress(out_, /*is_terminal=*/true, clock_);
  std::uint64_t received = 0;
  for (int second = 0; second < 60; ++second) {
    // Fast for half a minute, then slow.
    received += second < 30 ? 100'000'000 : 1'000'000;
    progress.update({.file = "w", .done = received, .total = 9'000'000'000, .received = received});
    pass(1000);
  }
  const std::string text = take();
  EXPECT_THAT(text.substr(text.rfind('\r')), HasSubstr("1.00 MB/s"));
}

TEST_F(PullProgressTest, ALineThatStaysWipesTheOneThatDoesNot) {
  PullProgress progress(out_, /*is_terminal=*/true, clock_);
  progress.update({.file = "w", .done = 1, .total = 100, .received = 1});
  take();

  progress.line("broken; try 1 of 5");

  EXPECT_EQ(take(), "\r\x1b[Kbroken; try 1 of 5\n");
}

TEST_F(PullProgressTest, PipeGetsALineForEachTenth) {
  PullProgress progress(out_, /*is_terminal=*/false, clock_);
  for (std::uint64_t done = 1; done <= 1000; ++done) {
    pass(10);
    progress.update({.file = "w", .done = done, .total = 1000, .received = done});
  }

  const std::string text = take();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 10);
  EXPECT_THAT(text, Not(HasSubstr("\r")));
  EXPECT_THAT(text, HasSubstr("100 %  1.00 kB of 1.00 kB"));
}

}  // namespace
}  // namespace fovea::cli
