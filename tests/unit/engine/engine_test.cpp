// What the engine promises around the models, on a golden checkpoint: seeds, stop strings, limits,
// cancellation, faults.

#include "fovea/engine.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <set>
#include <thread>

#include "support/instrumented.h"
#include "support/must.h"
#include "support/scratch_folder.h"

namespace fovea {
namespace {

const std::filesystem::path kModel = std::filesystem::path(FOVEA_TEST_DATA) / "md2-mha";

Engine& engine() {
  static const std::unique_ptr<Engine> instance = [] {
    EngineOptions options;
    options.model = kModel;
    options.precision = Precision::kF32;
    return testing_support::must(Engine::create(options));
  }();
  return *instance;
}

// A text-only question: no picture keeps these tests fast.
Request question(std::string text = "how many") {
  Request request{.skill = QueryRequest{std::move(text), false, {}}};
  request.sampling.max_tokens = 12;
  return request;
}

Image small_picture() { return {2, 1, {255, 0, 0, 0, 0, 255}}; }

TEST(Engine, EqualSeedsGiveEqualAnswersAndOtherSeedsOthers) {
  Request request = question();
  request.sampling.temperature = 5;
  request.sampling.top_p = 1;
  std::set<std::vector<std::int32_t>> answers;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    request.sampling.seed = seed;
    const auto first = engine().run(request), second = engine().run(request);
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_EQ(first->token_ids, second->token_ids);
    answers.insert(first->token_ids);
  }
  EXPECT_GT(answers.size(), 4u);
}

TEST(Engine, SeveralAnswersShareThePictureAndEachIsFoundAgainByItsSeed) {
  Request request = question();
  request.picture = small_picture();
  request.sampling.temperature = 5;
  request.sampling.top_p = 1;
  request.sampling.seed = 100;
  engine().drop_caches();
  const std::int64_t crops = engine().stats().num_crops;
  const std::vector<Result<Response>> answers = engine().run_all(repeat(request, 4));
  EXPECT_EQ(engine().stats().num_crops, crops + 1);
  ASSERT_EQ(answers.size(), 4u);
  std::set<std::vector<std::int32_t>> different;
  for (const Result<Response>& answer : answers) {
    ASSERT_TRUE(answer.ok()) << answer.error().message;
    EXPECT_EQ(answer->token_ids, engine().run(request)->token_ids);
    ++request.sampling.seed;
    different.insert(answer->token_ids);
  }
  EXPECT_GT(different.size(), 2u);
}

TEST(Engine, TopKOfOneIsGreedy) {
  Request greedy = question();
  greedy.sampling.temperature = 0;
  Request top = question();
  top.sampling.temperature = 2;
  top.sampling.top_k = 1;
  const auto a = engine().run(greedy), b = engine().run(top);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->token_ids, b->token_ids);
}

TEST(Engine, BudgetEndsTheAnswerWithLength) {
  Request request = question();
  request.sampling.temperature = 5;
  request.sampling.max_tokens = 3;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    request.sampling.seed = seed;
    const auto response = engine().run(request);
    ASSERT_TRUE(response.ok());
    EXPECT_LE(response->usage.completion_tokens, 3);
    if (response->usage.completion_tokens == 3 && response->token_ids.size() == 3) {
      EXPECT_EQ(response->finish_reason, FinishReason::kLength);
    }
  }
}

TEST(Engine, ABudgetThatDoesNotFitIsRefusedWithTheNumbers) {
  Request request = question();
  request.sampling.max_tokens = 1'000'000;
  const auto response = engine().run(request);
  ASSERT_FALSE(response.ok());
  EXPECT_EQ(response.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(response.error().message.find("1000000"), std::string::npos);
  EXPECT_NE(response.error().message.find(std::to_string(engine().info().max_context)),
            std::string::npos);
}

TEST(Engine, ALongPromptRunsInSeveralPasses) {
  std::string text;
  for (int i = 0; i < 1200; ++i) text += "a";
  Request request = question(text);
  request.sampling.temperature = 0;
  request.sampling.max_tokens = 1;
  const auto response = engine().run(request);
  ASSERT_TRUE(response.ok()) << response.error().message;
  EXPECT_GT(response->usage.prompt_tokens, 1100);
}

TEST(Engine, StoppingTheStreamCancelsAndTheEngineGoesOn) {
  Request request = question();
  request.sampling.temperature = 5;
  int cancelled = 0;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    request.sampling.seed = seed;
    const auto response = engine().run(request, [](std::string_view) { return false; });
    if (response.ok()) continue;  // no text came
    EXPECT_EQ(response.error().code, ErrorCode::kCancelled);
    ++cancelled;
  }
  EXPECT_GT(cancelled, 0);
  EXPECT_TRUE(engine().run(question()).ok());
}

TEST(Engine, DecodedPixelsAndThreads) {
  Request request{.skill = PointRequest{"dot", 1, {}}};
  request.picture = small_picture();
  const auto alone = engine().run(request);
  ASSERT_TRUE(alone.ok()) << alone.error().message;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      const auto response = engine().run(request);
      ASSERT_TRUE(response.ok());
      EXPECT_EQ(response->token_ids, alone->token_ids);
    });
  }
}

TEST(Engine, PixelsThatDoNotMatchTheirSizeAreRefused) {
  Request request{.skill = CaptionRequest{}};
  request.picture = Image{100, 100, {1, 2, 3}};
  const auto response = engine().run(request);
  ASSERT_FALSE(response.ok());
  EXPECT_NE(response.error().message.find("30000"), std::string::npos) << response.error().message;
}

TEST(Engine, OptionsAreChecked) {
  const auto message = [](auto&& change) {
    EngineOptions options;
    options.model = kModel;
    change(options);
    const auto created = Engine::create(options);
    return created.ok() ? std::string("accepted") : created.error().message;
  };
  EXPECT_NE(message([](auto& o) { o.model = ""; }).find("no model"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.model = "/nowhere"; }).find("/nowhere"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.device = "toaster"; }).find("toaster"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.cpu_isa = "mmx"; }).find("mmx"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.max_context = 700; }).find("700"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.max_context = 70'000; }).find("70000"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.num_threads = -1; }).find("-1"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.compatibility.coordinate_divisor = 7; }).find("7"),
            std::string::npos);
}

// Questions, captions, boxes and points about a few pictures, greedy and drawn.
std::vector<Request> mixed_requests(int count) {
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    Request request;
    switch (i % 4) {
      case 0:
        request.skill = QueryRequest{"how many " + std::to_string(i % 7), false, {}};
        break;
      case 1:
        request.skill = CaptionRequest{CaptionLength::kShort};
        break;
      case 2:
        request.skill = DetectRequest{"dot", 3};
        break;
      default:
        request.skill = PointRequest{"dot", 2, {}};
    }
    if (i % 4 != 0 || i % 8 == 0) {
      Image image = small_picture();
      image.rgb[0] = static_cast<std::uint8_t>(i % 5 * 50);
      request.picture = std::move(image);
    }
    request.sampling.max_tokens = 4 + i % 9;
    request.sampling.temperature = i % 3 == 0 ? 1.0f : 0.0f;
    request.sampling.seed = static_cast<std::uint64_t>(i % 11);
    requests.push_back(std::move(request));
  }
  return requests;
}

TEST(Engine, RequestsSideBySideGiveTheAnswersOfRequestsAlone) {
  constexpr int kCount = testing_support::kInstrumented ? 6 : 48;
  const std::vector<Request> requests = mixed_requests(kCount);
  std::vector<std::vector<std::int32_t>> alone;
  for (const Request& request : requests) {
    engine().drop_caches();
    const auto response = engine().run(request);
    ASSERT_TRUE(response.ok()) << response.error().message;
    alone.push_back(response->token_ids);
  }
  engine().drop_caches();
  const std::vector<Result<Response>> together = engine().run_all(requests);
  int cached = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(together[i].ok()) << together[i].error().message;
    EXPECT_EQ(together[i]->token_ids, alone[i]) << i;
    cached += together[i]->usage.cached_tokens > 729 ? 1 : 0;
  }
  EXPECT_GE(cached, kCount / 4);
  engine().drop_caches();
  EXPECT_EQ(engine().stats().pages_free, engine().stats().pages_total);
}

TEST(Engine, LogprobsListTheChosenWordAndItsRivals) {
  Request request = question();
  request.sampling.temperature = 0;
  request.sampling.top_logprobs = 3;
  const auto response = engine().run(request);
  ASSERT_TRUE(response.ok()) << response.error().message;
  ASSERT_EQ(response->logprobs.size(), response->token_ids.size());
  ASSERT_FALSE(response->logprobs.empty());
  for (std::size_t i = 0; i < response->logprobs.size(); ++i) {
    const TokenLogprob& token = response->logprobs[i];
    EXPECT_EQ(token.id, response->token_ids[i]);
    ASSERT_EQ(token.top.size(), 3u);
    EXPECT_EQ(token.top[0].first, token.id);  // greedy: the likeliest was taken
    EXPECT_FLOAT_EQ(token.top[0].second, token.logprob);
    EXPECT_GE(token.top[0].second, token.top[1].second);
    EXPECT_LE(token.logprob, 0);
  }
}

TEST(Engine, ABiasBansAWordAndAPenaltyStopsRepetition) {
  Request request = question();
  request.sampling.temperature = 0;
  const auto plain = engine().run(request);
  ASSERT_TRUE(plain.ok() && !plain->token_ids.empty());
  const std::int32_t first = plain->token_ids.front();
  request.sampling.logit_bias = {{first, -100.0f}};
  const auto biased = engine().run(request);
  ASSERT_TRUE(biased.ok());
  EXPECT_EQ(std::ranges::count(biased->token_ids, first), 0);
  request.sampling.logit_bias = {{1 << 24, 1.0f}};
  EXPECT_FALSE(engine().run(request).ok());
}

TEST(Engine, AFolderRemembersPicturesForTheNextProcess) {
  EngineOptions options;
  options.model = kModel;
  options.precision = Precision::kF32;
  options.image_cache_folder = testing_support::scratch_folder() / "pictures";
  std::vector<std::string> lines;
  options.request_log = [&](std::string_view line) { lines.emplace_back(line); };
  Request request = question("how many");
  request.picture = small_picture();
  request.sampling.temperature = 0;
  request.request_id = "trace-7";
  std::vector<std::vector<std::int32_t>> answers;
  for (const int expected_crops : {1, 0}) {
    const auto created = Engine::create(options);
    ASSERT_TRUE(created.ok()) << created.error().message;
    const auto response = (*created)->run(request);
    ASSERT_TRUE(response.ok());
    answers.push_back(response->token_ids);
    EXPECT_EQ((*created)->stats().num_crops, expected_crops);
    EXPECT_NE((*created)->metrics_text().find("fovea_"), std::string::npos);
  }
  EXPECT_EQ(answers[0], answers[1]);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].find("how many"), std::string::npos);
  EXPECT_NE(lines[0].find("\"request_id\":\"trace-7\""), std::string::npos);
  std::filesystem::remove_all(options.image_cache_folder);
}

TEST(Engine, InfoCountsMemory) {
  const ModelInfo& info = engine().info();
  EXPECT_EQ(info.family, "moondream2");
  EXPECT_EQ(info.precision, "f32");
  EXPECT_EQ(info.image_tokens, 729);
  EXPECT_GT(info.num_parameters, 1'000'000);
  // f32 weights, packed, and little besides.
  EXPECT_GE(info.weight_bytes, static_cast<std::size_t>(info.num_parameters) * 4);
  EXPECT_LT(info.weight_bytes, static_cast<std::size_t>(info.num_parameters) * 5);
  // Layers, k and v, width, positions, bytes: the context of one sequence at least.
  EXPECT_GE(info.kv_cache_bytes, std::size_t{2} * 2 * 128 * 2048 * 4);
  EXPECT_GT(info.scratch_bytes, 0u);
}

}  // namespace
}  // namespace fovea
