#include "batch_progress.h"

#include <gmock/gmock.h>
#include <sstream>

namespace fovea::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class BatchLine : public ::testing::Test {
 protected:
  BatchProgress::Clock clock() {
    return [this] { return now_; };
  }
  std::string last_line() const {
    const std::string all = out_.str();
    return all.substr(all.rfind('\r') + 1);
  }

  std::chrono::steady_clock::time_point now_;
  std::ostringstream out_;
};

TEST_F(BatchLine, TellsCountRateAndTimeLeft) {
  BatchProgress progress(out_, true, 100, clock());
  now_ += std::chrono::seconds(10);
  for (int i = 0; i < 19; ++i) progress.advance(false);
  now_ += std::chrono::seconds(1);
  progress.advance(true);

  EXPECT_THAT(last_line(), HasSubstr("20/100  1.8/s  0:44 left  1 failed"));
  EXPECT_THAT(last_line(), HasSubstr("[====                    ]"));
}

TEST_F(BatchLine, SlowOnesAreToldInSeconds) {
  BatchProgress progress(out_, true, 1001, clock());
  now_ += std::chrono::seconds(40);
  progress.advance(false);

  EXPECT_THAT(last_line(), HasSubstr("1/1001  40.0 s each  11:06:40 left"));
}

TEST_F(BatchLine, MessagesGoAboveTheLine) {
  BatchProgress progress(out_, true, 3, clock());
  progress.advance(false);
  progress.message("fovea: a.jpg is broken");

  EXPECT_THAT(out_.str(), HasSubstr("\r\x1b[Kfovea: a.jpg is broken\n\r["));
}

TEST_F(BatchLine, WipesItself) {
  { BatchProgress(out_, true, 3, clock()).advance(false); }

  EXPECT_TRUE(out_.str().ends_with("\r\x1b[K"));
}

TEST_F(BatchLine, APipeGetsOnlyMessages) {
  {
    BatchProgress progress(out_, false, 2, clock());
    progress.advance(false);
    progress.message("hello");
    progress.redraw();
  }

  EXPECT_EQ(out_.str(), "hello\n");
}

TEST_F(BatchLine, DrawsNoMoreOftenThanOneCanSee) {
  BatchProgress progress(out_, true, 1000, clock());
  for (int i = 0; i < 1000; ++i) progress.advance(false);

  EXPECT_THAT(out_.str(), HasSubstr("1/1000"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("2/1000")));
}

}  // namespace
}  // namespace fovea::cli
