#include "hub/retry.h"

#include <gmock/gmock.h>
#include <vector>

namespace fovea::hub {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;

class RetrierTest : public ::testing::Test {
 protected:
  RetrierTest() {
    policy_.wait = [this](milliseconds time) { waits_.push_back(time.count()); };
  }

  HttpOutcome answer(int status, const std::string& retry_after = "") {
    HttpOutcome outcome;
    outcome.response.status = status;
    if (!retry_after.empty()) outcome.response.headers["retry-after"] = retry_after;
    return outcome;
  }

  RetryPolicy policy_{
      .retries = 4, .first_wait = milliseconds(100), .longest_wait = milliseconds(500)};
  PullEvents events_;
  std::vector<long> waits_;
};

TEST_F(RetrierTest, WaitsTwiceAsLongEachTimeUpToALimit) {
  Retrier retrier(policy_, events_);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(retrier.again(answer(503)));
  EXPECT_FALSE(retrier.again(answer(503)));
  EXPECT_THAT(waits_, ElementsAre(100, 200, 400, 500));
}

TEST_F(RetrierTest, ProgressBeginsAnew) {
  Retrier retrier(policy_, events_);
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(retrier.again(answer(500)));
    retrier.reset();
  }
  EXPECT_EQ(waits_.back(), 100);
}

TEST_F(RetrierTest, WaitsAsLongAsTheServerAsksWithinTheLimit) {
  policy_.longest_wait = milliseconds(60'000);
  Retrier retrier(policy_, events_);
  EXPECT_TRUE(retrier.again(answer(429, "7")));
  EXPECT_TRUE(retrier.again(answer(429, "86400")));
  EXPECT_TRUE(retrier.again(answer(429, "soon")));
  EXPECT_THAT(waits_, ElementsAre(7'000, 60'000, 400));
}

TEST_F(RetrierTest, DoesNotRepeatWhatWillNotChange) {
  Retrier retrier(policy_, events_);
  for (const int status : {200, 400, 401, 403, 404, 416, 501}) {
    EXPECT_FALSE(retrier.again(answer(status))) << status;
  }
  HttpOutcome refused;
  refused.status = Error{ErrorCode::kIo, "certificate"};
  refused.worth_retrying = false;
  EXPECT_FALSE(retrier.again(refused));
  EXPECT_TRUE(waits_.empty());
}

}  // namespace
}  // namespace fovea::hub
