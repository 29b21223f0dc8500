#include "progress.h"

#include <gmock/gmock.h>
#include <sstream>

namespace fovea::cli {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class Progress : public ::testing::Test {
 protected:
  LoadProgress::Clock clock() {
    return [this] { return now_; };
  }
  void pass(int milliseconds) { now_ += std::chrono::milliseconds(milliseconds); }

  std::ostringstream terminal_;
  std::chrono::steady_clock::time_point now_;
};

TEST_F(Progress, QuickLoadingShowsNothing) {
  {
    LoadProgress progress(terminal_, clock());
    progress.update(0.0);
    pass(100);
    progress.update(0.9);
    pass(1);
    progress.update(1.0);
  }
  EXPECT_EQ(terminal_.str(), "");
}

TEST_F(Progress, SlowLoadingShowsPercentAndWipesTheLine) {
  LoadProgress progress(terminal_, clock());
  pass(1000);
  progress.update(0.429);
  EXPECT_THAT(terminal_.str(), HasSubstr(" 42 %"));

  progress.update(1.0);
  EXPECT_THAT(terminal_.str(), EndsWith("\r\x1b[K"));
}

TEST_F(Progress, FailedLoadingWipesTheLineToo) {
  {
    LoadProgress progress(terminal_, clock());
    pass(1000);
    progress.update(0.5);
  }
  EXPECT_THAT(terminal_.str(), EndsWith("\r\x1b[K"));
}

TEST_F(Progress, SamePercentIsNotPrintedAgain) {
  LoadProgress progress(terminal_, clock());
  pass(1000);
  progress.update(0.501);
  const std::string before = terminal_.str();
  progress.update(0.502);
  EXPECT_EQ(terminal_.str(), before);
}

}  // namespace
}  // namespace fovea::cli
