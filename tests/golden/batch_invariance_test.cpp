// The same request alone and among 63 others, to the bit: always on the processor, in
// batch-invariant mode on a GPU.

#include <gtest/gtest.h>

#include "fovea/engine.h"

#include "golden/golden_case.h"
#include "support/must.h"

namespace fovea {
namespace {

using golden::kData;

constexpr int kBatch = 64;

struct InvarianceCase {
  const char* folder;
  Precision precision;
  const char* name;
};

class BatchInvariance : public testing::TestWithParam<InvarianceCase> {};

std::unique_ptr<Engine> make_engine(const InvarianceCase& which) {
  EngineOptions options;
  options.model = kData / which.folder;
  options.device = golden::device_name();
  options.precision = which.precision;
  options.batch_invariant = true;
  options.max_sequences = kBatch;
  options.kv_cache_bytes = std::size_t{128} << 20;
  options.max_stall_ms = 60'000;  // answers may wait until all are there
  return testing_support::must(Engine::create(options));
}

// Words are drawn, so that a difference of a bit anywhere may become another answer.
Request ask(std::string question, const std::optional<Picture>& picture, std::uint64_t seed,
            int num_tokens) {
  Request request{.skill = QueryRequest{std::move(question), false, {}}, .picture = picture};
  request.sampling.temperature = 1;
  request.sampling.top_p = 1;
  request.sampling.seed = seed;
  request.sampling.max_tokens = num_tokens;
  request.sampling.ignore_eos = true;
  request.sampling.top_logprobs = 3;
  return request;
}

void expect_equal(const Response& alone, const Response& together) {
  EXPECT_EQ(alone.token_ids, together.token_ids);
  ASSERT_EQ(alone.logprobs.size(), together.logprobs.size());
  for (std::size_t i = 0; i < alone.logprobs.size(); ++i) {
    EXPECT_EQ(alone.logprobs[i].logprob, together.logprobs[i].logprob) << "token " << i;
    EXPECT_EQ(alone.logprobs[i].top, together.logprobs[i].top) << "token " << i;
  }
}

TEST_P(BatchInvariance, AnAnswerIsTheSameAloneAndAmong63Others) {
  const bool is_slow = golden::device_name() == "emulator";
  const int num_tokens = is_slow ? 16 : 96;
  std::vector<Picture> pictures;
  for (const char* file : {"image_378x378.png", "image_640x480.png"}) {
    pictures.emplace_back(golden::read_bytes(kData / GetParam().folder / file));
  }
  // The one that is looked at, and others of other lengths; some about its picture, some about
  // another, most without one.
  const Request probe = ask("how many red circle are there", pictures[0], 7, num_tokens);
  std::vector<Request> requests;
  for (int i = 0; i < kBatch - 1; ++i) {
    std::string question = "where";
    for (int word = 0; word < i % 11; ++word) question += " is the blue circle";
    std::optional<Picture> picture;
    if (!is_slow && i % 8 < 2) picture = pictures[static_cast<std::size_t>(i % 8)];
    requests.push_back(ask(question, picture, 100 + static_cast<std::uint64_t>(i), num_tokens));
  }
  requests.insert(requests.begin() + kBatch / 2, probe);

  const auto engine = make_engine(GetParam());
  const Response alone = testing_support::must(engine->run(probe));
  engine->drop_caches();
  const EngineStats before = engine->stats();
  const std::vector<Result<Response>> answers = engine->run_all(requests);
  const EngineStats after = engine->stats();
  for (const Result<Response>& answer : answers) {
    ASSERT_TRUE(answer.ok()) << answer.error().message;
    ASSERT_EQ(static_cast<std::size_t>(num_tokens), answer->logprobs.size());
  }
  expect_equal(alone, *answers[kBatch / 2]);

  // Each answer takes as many steps as it has tokens. In fewer than twice as many any two overlap,
  // and stretches of time of which any two overlap have a step in common: one held all 64.
  EXPECT_EQ(before.num_preemptions, after.num_preemptions);
  EXPECT_LT(after.num_steps - before.num_steps, 2 * num_tokens);
}

INSTANTIATE_TEST_SUITE_P(, BatchInvariance,
                         testing::Values(InvarianceCase{"md2-gqa", Precision::kBf16, "md2_bf16"},
                                         InvarianceCase{"md2-gqa", Precision::kFp8, "md2_fp8"},
                                         InvarianceCase{"md2-gqa", Precision::kInt4, "md2_int4"},
                                         InvarianceCase{"md3", Precision::kBf16, "md3_bf16"},
                                         InvarianceCase{"md3", Precision::kFp8, "md3_fp8"},
                                         InvarianceCase{"md3", Precision::kInt4, "md3_int4"}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace fovea
