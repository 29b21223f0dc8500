// The engine around a fake model: what it promises with many requests at once.

#include "engine/engine_loop.h"

#include <algorithm>
#include <future>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>
#include <thread>

#include "support/instrumented.h"
#include "support/loop_rig.h"

namespace fovea {
namespace {

using namespace testing_support;  // the loop's rig

// A mixed load: text alone and pictures, shared beginnings, different lengths.
std::vector<Request> mixed(int count, unsigned seed) {
  std::mt19937 random(seed);
  const char* const questions[] = {
      "a",    "what is it",    "what is there",
      "what", "how many dogs", "a much longer question that takes more than two pages of KV"};
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    std::optional<Picture> about;
    if (random() % 4 != 0) about = Picture(picture(static_cast<int>(random() % 20)));
    Request request = ask(questions[random() % std::size(questions)], about, random() % 8);
    request.sampling.max_tokens = 1 + static_cast<int>(random() % 60);
    request.priority = static_cast<int>(random() % 3) - 1;
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<std::string> answers_one_at_a_time(const std::vector<Request>& requests) {
  std::vector<std::string> answers;
  Rig rig(1);
  for (const Request& request : requests) {
    rig.loop->drop_caches();
    const Result<Response> response = rig.run(request);
    answers.push_back(response.ok() ? response->text : response.error().message);
  }
  return answers;
}

class AnyBatch : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(AnyBatch, AnswersEqualThoseOfOneAtATime) {
  const auto [max_sequences, num_pages, depth] = GetParam();
  constexpr int kCount = testing_support::kInstrumented ? 150 : 600;
  const std::vector<Request> requests = mixed(kCount, 7);
  static const std::vector<std::string> expected = answers_one_at_a_time(requests);
  Rig rig(max_sequences, num_pages, depth);
  std::vector<std::future<Result<Response>>> futures;
  for (const Request& request : requests) futures.push_back(rig.submit(request));
  for (std::size_t i = 0; i < futures.size(); ++i) {
    const Result<Response> response = futures[i].get();
    ASSERT_TRUE(response.ok()) << response.error().message;
    EXPECT_EQ(response->text, expected[i]) << i;
  }
  EXPECT_LE(rig.runner.largest_batch, max_sequences);
  if (max_sequences > 1) {
    EXPECT_GT(rig.runner.largest_batch, 1);
  }
  if (depth > 1) {
    // Steps launched over tokens not known yet, and those of another kind than their skill guessed.
    EXPECT_GT(rig.runner.num_fed_back, kCount * 5 / 3);
    EXPECT_GT(rig.runner.num_wrong_guesses, kCount / 6);
  } else {
    EXPECT_EQ(rig.runner.num_fed_back, 0);
  }
  if (num_pages < 3 * max_sequences) {
    EXPECT_GT(rig.loop->stats().num_preemptions, 0);
  }
  rig.expect_nothing_left();
}

// 16 pages hold one sequence of full length and no more: everything is evicted and pre-empted.
INSTANTIATE_TEST_SUITE_P(Batches, AnyBatch,
                         testing::Values(std::tuple(1, 400, 1), std::tuple(4, 400, 1),
                                         std::tuple(16, 400, 1), std::tuple(64, 2000, 1),
                                         std::tuple(16, 400, 2), std::tuple(16, 16, 1),
                                         std::tuple(16, 24, 2), std::tuple(8, 40, 1)));

TEST(EngineLoop, RequestsOfOnePictureTogetherEncodeItOnce) {
  Rig rig;
  rig.runner.close();
  std::vector<std::future<Result<Response>>> futures;
  for (int i = 0; i < 10; ++i) {
    futures.push_back(rig.submit(ask("question " + std::to_string(i), Picture(picture(3)))));
  }
  rig.runner.open();
  int cached = 0;
  for (auto& future : futures) {
    const Result<Response> response = future.get();
    ASSERT_TRUE(response.ok());
    cached += response->usage.cached_tokens > kImageTokens ? 1 : 0;
  }
  EXPECT_EQ(rig.runner.num_crops, 1);
  EXPECT_EQ(cached, 9);
}

// All arrive together and nothing is cached: the picture's prefix is computed by one of them, and
// the others wait for it rather than compute it again.
TEST(EngineLoop, QuestionsAboutOnePicturePrefillItsPrefixOnce) {
  for (const int depth : {1, 2}) {
    Rig rig(16, 400, depth);
    rig.runner.close();
    std::vector<std::future<Result<Response>>> futures;
    int num_question_rows = 0;
    for (int i = 0; i < 12; ++i) {
      const std::string question = std::string(1, static_cast<char>('a' + i)) + " question";
      num_question_rows += static_cast<int>(question.size());
      futures.push_back(rig.submit(ask(question, Picture(picture(3)))));
    }
    rig.runner.open();
    for (auto& future : futures) ASSERT_TRUE(future.get().ok());
    EXPECT_EQ(rig.runner.num_crops, 1);
    EXPECT_EQ(rig.runner.num_prompt_rows, 1 + kImageTokens + num_question_rows);
  }
}

TEST(EngineLoop, AFollowUpAboutAPictureSkipsVisionAndItsPrefill) {
  Rig rig;
  ASSERT_TRUE(rig.run(ask("one", Picture(picture(3)))).ok());
  const Result<Response> second = rig.run(ask("two", Picture(picture(3))));
  ASSERT_TRUE(second.ok());
  EXPECT_GE(second->usage.cached_tokens, 1 + kImageTokens);
  EXPECT_EQ(rig.runner.num_crops, 1);
}

TEST(EngineLoop, AnEncodedPictureOutlivesItsKeysAndValues) {
  Rig rig(4, 16);  // the next request pushes the first one's pages out
  ASSERT_TRUE(rig.run(ask("one", Picture(picture(3)))).ok());
  Request large = ask(std::string(150, 'x'));
  large.sampling.max_tokens = 100;
  ASSERT_TRUE(rig.run(large).ok());
  ASSERT_TRUE(rig.run(ask("two", Picture(picture(3)))).ok());
  EXPECT_EQ(rig.runner.num_crops, 1);
}

TEST(EngineLoop, AFullQueueRefusesAndSaysWhenToTryAgain) {
  Rig rig(1, 400, 1, 3);
  rig.runner.close();
  std::vector<std::future<Result<Response>>> inside;
  for (int i = 0; i < 3; ++i) inside.push_back(rig.submit(ask("question")));
  const Result<Response> refused = rig.run(ask("one too many"));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kOverloaded);
  EXPECT_THAT(refused.error().message, testing::HasSubstr("try again in"));
  rig.runner.open();
  for (auto& future : inside) EXPECT_TRUE(future.get().ok());
  EXPECT_TRUE(rig.run(ask("there is room again")).ok());
}

TEST(EngineLoop, ARequestThatCannotFitAloneIsRefusedAtOnce) {
  Rig rig;
  Request request = ask("question");
  request.sampling.max_tokens = kContext;
  const Result<Response> refused = rig.run(std::move(request));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
}

TEST(EngineLoop, ABadPictureEndsItsOwnRequestAlone) {
  Rig rig;
  auto good = rig.submit(ask("good", Picture(picture(1))));
  const Result<Response> bad = rig.run(ask("bad", Picture(std::vector<std::byte>(10))));
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(good.get().ok());
  rig.expect_nothing_left();
}

TEST(EngineLoop, AThrowingCallbackEndsItsOwnRequestAlone) {
  Rig rig;
  auto good = rig.submit(ask("good"));
  // Answers of 40 words: the callback throws long before the end.
  auto bad = rig.submit(ask("bad", {}, 3), nullptr,
                        [](std::string_view) -> bool { throw std::runtime_error("no"); });
  EXPECT_TRUE(good.get().ok());
  const Result<Response> answer = bad.get();  // it may have ended before it heard of the refusal
  if (!answer.ok()) {
    EXPECT_EQ(answer.error().code, ErrorCode::kCancelled);
  }
  EXPECT_TRUE(rig.run(ask("later")).ok());
  rig.expect_nothing_left();
}

TEST(EngineLoop, AFailedStepEndsItsRequestsAndTheEngineGoesOn) {
  for (const bool at_launch : {true, false}) {
    Rig rig(4);
    std::atomic<int> faults = 1;
    if (at_launch) {
      rig.runner.fail_launch = [&](const StepPlan& plan) {
        return !plan.rows.empty() && faults.exchange(0) == 1;
      };
    } else {
      rig.runner.fail_collect = [&] { return faults.exchange(0) == 1; };
    }
    const Result<Response> failed = rig.run(ask("question", Picture(picture(1))));
    ASSERT_FALSE(failed.ok());
    EXPECT_EQ(failed.error().code, ErrorCode::kDeviceLost);
    EXPECT_TRUE(rig.run(ask("question", Picture(picture(1)))).ok());
    rig.expect_nothing_left();
  }
}

TEST(EngineLoop, ADeadlineEndsARequestThatWaits) {
  Rig rig(1);
  rig.runner.close();
  auto running = rig.submit(ask("first"));
  Request late = ask("late");
  late.deadline_ms = 1;
  auto waiting = rig.submit(std::move(late));
  std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the deadline itself
  rig.runner.open();
  const Result<Response> answer = waiting.get();
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_TRUE(running.get().ok());
  rig.expect_nothing_left();
}

TEST(EngineLoop, UnknownAdaptersAreNamed) {
  Rig rig;
  Request request = ask("question");
  request.adapter = "french";
  const Result<Response> refused = rig.run(std::move(request));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(refused.error().message, testing::HasSubstr("french"));
}

TEST(EngineLoop, StreamedPiecesJoinToTheAnswer) {
  Rig rig;
  std::string streamed;  // the delivery thread writes it before the answer is there
  auto future =
      rig.submit(ask("question", Picture(picture(1))), nullptr, [&](std::string_view text) {
        streamed += text;
        return true;
      });
  const Result<Response> response = future.get();
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(streamed, response->text);
}

TEST(EngineLoop, CancelsAtAnyMomentLeaveNothingBehind) {
  for (const int depth : {1, 2}) {
    Rig rig(16, 60, depth);
    std::mt19937 random(3);
    std::vector<std::future<Result<Response>>> futures;
    std::vector<std::uint64_t> ids;
    for (const Request& request : mixed(5000, 11)) {
      std::uint64_t id = 0;
      futures.push_back(rig.submit(request, &id));
      ids.push_back(id);
      while (ids.size() > random() % 48) {
        const std::size_t victim = random() % ids.size();
        rig.loop->cancel(ids[victim]);
        ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(victim));
      }
    }
    int cancelled = 0;
    for (auto& future : futures) {
      const Result<Response> response = future.get();
      if (response.ok()) continue;
      ASSERT_EQ(response.error().code, ErrorCode::kCancelled) << response.error().message;
      ++cancelled;
    }
    EXPECT_GT(cancelled, 100);
    rig.expect_nothing_left();
  }
}

TEST(EngineLoop, DestructionTellsEverybody) {
  std::vector<std::future<Result<Response>>> futures;
  {
    Rig rig(2);
    rig.runner.close();
    for (const Request& request : mixed(50, 5)) futures.push_back(rig.submit(request));
    rig.runner.open();
  }
  for (auto& future : futures) {
    const Result<Response> response = future.get();
    if (!response.ok()) {
      EXPECT_EQ(response.error().code, ErrorCode::kCancelled);
    }
  }
}

}  // namespace
}  // namespace fovea
