// Memory that runs out on any thread while the model in the box computes: a request ends, the
// process and everybody else do not.

#include <future>
#include <gtest/gtest.h>
#include <iostream>

#include "fovea/engine.h"
#include "fovea/picture.h"

#include "support/failing_new.h"

namespace fovea {
namespace {

using testing_support::ExemptFromFailing;
using testing_support::FailingNew;

// Every skill, with and without a picture, two of them about the same one.
std::vector<Request> one_of_each() {
  std::vector<Request> requests = {{.skill = CaptionRequest{CaptionLength::kShort}},
                                   {.skill = DetectRequest{"circle", 4}},
                                   {.skill = PointRequest{"circle", 4}},
                                   {.skill = QueryRequest{"What is this?", true, {}, {}}},
                                   {.skill = QueryRequest{"What is this?", false, {}, {}}}};
  constexpr int kSize = 60;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (i < 4) {
      const auto shade = static_cast<std::uint8_t>(i / 2 * 90);
      requests[i].picture = Picture(
          Image{kSize, kSize, std::vector<std::uint8_t>(std::size_t{3} * kSize * kSize, shade)});
    }
    requests[i].sampling.temperature = 0;
    requests[i].sampling.max_tokens = 6;
  }
  return requests;
}

class ModelFaults : public testing::Test {
 protected:
  void SetUp() override {
    EngineOptions options;
    options.model = FOVEA_TINY_MODEL;
    options.max_context = 1024;
    options.max_sequences = 8;
    auto created = Engine::create(options);
    ASSERT_TRUE(created.ok()) << created.error().message;
    engine_ = std::move(created).value();
    for (const Request& request : requests_) {
      const auto answer = engine_->run(request);
      ASSERT_TRUE(answer.ok()) << answer.error().message;
      expected_.push_back(answer->token_ids);
    }
  }

  // All requests at once while `count` allocations fail from number `first` on: how many did fail.
  int run_with_failures(int first, int count) {
    engine_->drop_caches();
    std::vector<std::promise<Result<Response>>> answers(requests_.size());
    const FailingNew failing(first, count);
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      Callbacks callbacks{.on_text = {}, .on_done = [&answers, i](Result<Response> answer) {
                            answers[i].set_value(std::move(answer));
                          }};
      const auto id = engine_->submit(requests_[i], std::move(callbacks));
      EXPECT_TRUE(id.ok()) << id.error().message;
      if (!id.ok()) answers[i].set_value(id.error());
    }
    int num_lost = 0;
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      const Result<Response> answer = answers[i].get_future().get();
      if (answer.ok()) {
        EXPECT_EQ(answer->token_ids, expected_[i]) << i;
      } else {
        ++num_lost;
        EXPECT_EQ(answer.error().code, ErrorCode::kResourceExhausted) << answer.error().message;
      }
    }
    num_lost_ += num_lost;
    return FailingNew::num_failed();
  }

  void expect_all_as_before() {
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      const auto answer = engine_->run(requests_[i]);
      ASSERT_TRUE(answer.ok()) << answer.error().message;
      EXPECT_EQ(answer->token_ids, expected_[i]) << i;
    }
    engine_->drop_caches();
    const EngineStats stats = engine_->stats();
    EXPECT_EQ(stats.pages_free, stats.pages_total);
    EXPECT_EQ(stats.num_running, 0);
    EXPECT_EQ(stats.num_waiting, 0);
  }

  const ExemptFromFailing exempt_;
  const std::vector<Request> requests_ = one_of_each();
  std::vector<std::vector<std::int32_t>> expected_;
  std::unique_ptr<Engine> engine_;
  int num_lost_ = 0;
};

TEST_F(ModelFaults, AnyAllocationMayFailWhileItComputes) {
  int num_struck = 0, first = 1;
  // As far as there are allocations to fail.
  for (int failed = 1; failed > 0; first += 2) {
    failed = run_with_failures(first, 1);
    num_struck += failed;
    if (HasFailure()) FAIL() << "allocation " << first;
  }
  expect_all_as_before();
  std::cout << num_struck << " failed allocations up to the " << first << "th, " << num_lost_
            << " requests lost\n";
  EXPECT_GT(num_struck, 100);
  EXPECT_GT(num_lost_, 40);
}

TEST_F(ModelFaults, ManyAllocationsMayFailInARow) {
  for (int first = 1; first < 400; first += 23) {
    run_with_failures(first, 60);
    if (HasFailure()) FAIL() << "allocation " << first;
  }
  expect_all_as_before();
}

}  // namespace
}  // namespace fovea
