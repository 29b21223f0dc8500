// Element types of keys and values through the whole engine, on a golden checkpoint.

#include <cmath>
#include <gtest/gtest.h>

#include "fovea/engine.h"

#include "support/must.h"

namespace fovea {
namespace {

std::unique_ptr<Engine> make(KvPrecision precision) {
  EngineOptions options;
  options.model = std::filesystem::path(FOVEA_TEST_DATA) / "md2-mha";
  options.precision = Precision::kF32;
  options.kv_precision = precision;
  return testing_support::must(Engine::create(options));
}

std::vector<Request> requests() {
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) {
    Request request{.skill = QueryRequest{"how many " + std::to_string(i), false, {}}};
    Image image{4, 4, std::vector<std::uint8_t>(48)};
    for (std::size_t p = 0; p < 48; ++p) {
      image.rgb[p] = static_cast<std::uint8_t>(p * static_cast<std::size_t>(i + 1) * 5);
    }
    if (i % 2 == 0) request.picture = std::move(image);
    request.sampling.temperature = 0;
    request.sampling.max_tokens = 8;
    request.sampling.top_logprobs = 0;
    requests.push_back(std::move(request));
  }
  return requests;
}

TEST(KvPrecision, IsReportedAndPaidFor) {
  const auto f32 = make(KvPrecision::kAuto), bf16 = make(KvPrecision::kBf16);
  const auto int8 = make(KvPrecision::kInt8), fp8 = make(KvPrecision::kFp8);
  EXPECT_EQ(f32->info().kv_precision, "f32");
  EXPECT_EQ(bf16->info().kv_precision, "bf16");
  EXPECT_EQ(int8->info().kv_precision, "int8");
  EXPECT_EQ(fp8->info().kv_precision, "fp8");
  const auto page_bytes = [](const Engine& engine) {
    return static_cast<double>(engine.info().kv_cache_bytes) / engine.stats().pages_total;
  };
  EXPECT_EQ(page_bytes(*bf16) * 2, page_bytes(*f32));
  // Heads of 64: a byte for each element, and one scale of four.
  EXPECT_EQ(page_bytes(*int8), page_bytes(*f32) / 4 * (1 + 4.0 / 64));
  EXPECT_EQ(page_bytes(*fp8), page_bytes(*int8));
}

// An int8 code is off by at most 1/254 of the largest element of its head, an fp8 code by 1/16 of
// the element itself, and bf16 by 1/256 of it. Through two layers that moves the first word's
// log-probability by hundredths, of fp8 by tenths; a page read with the wrong scale or layout moves
// it by whole units.
TEST(KvPrecision, SmallerElementsBarelyMoveTheAnswers) {
  const auto exact = make(KvPrecision::kF32);
  for (const KvPrecision precision : {KvPrecision::kBf16, KvPrecision::kInt8, KvPrecision::kFp8}) {
    const auto engine = make(precision);
    double largest = 0;
    int num_words = 0, num_equal = 0;
    for (const Request& request : requests()) {
      const auto expected = exact->run(request), found = engine->run(request);
      ASSERT_TRUE(expected.ok() && found.ok());
      ASSERT_FALSE(expected->logprobs.empty() || found->logprobs.empty());
      largest = std::max(largest, static_cast<double>(std::fabs(expected->logprobs[0].logprob -
                                                                found->logprobs[0].logprob)));
      const std::size_t words = std::min(expected->token_ids.size(), found->token_ids.size());
      num_words += static_cast<int>(expected->token_ids.size());
      for (std::size_t i = 0; i < words; ++i) {
        num_equal += expected->token_ids[i] == found->token_ids[i] ? 1 : 0;
      }
    }
    RecordProperty(engine->info().kv_precision + "_words_equal",
                   std::to_string(num_equal) + " of " + std::to_string(num_words));
    const bool is_fp8 = precision == KvPrecision::kFp8;
    EXPECT_LT(largest, is_fp8 ? 0.3 : 0.05) << engine->info().kv_precision;
    EXPECT_GE(num_equal, num_words * (is_fp8 ? 7 : 9) / 10) << engine->info().kv_precision;
    std::printf("%s: log-probability off by %.5f, %d of %d words equal\n",
                engine->info().kv_precision.c_str(), largest, num_equal, num_words);
  }
}

// A picture's pages that are cached or copied give the same answer as fresh ones, to the bit.
TEST(KvPrecision, CachedPagesOfCodesGiveTheSameAnswers) {
  for (const KvPrecision precision : {KvPrecision::kInt8, KvPrecision::kFp8}) {
    const auto engine = make(precision);
    for (const Request& request : requests()) {
      const auto fresh = engine->run(request), cached = engine->run(request);
      ASSERT_TRUE(fresh.ok() && cached.ok());
      EXPECT_GT(cached->usage.cached_tokens, 0);
      EXPECT_EQ(fresh->token_ids, cached->token_ids);
      EXPECT_EQ(fresh->logprobs[0].logprob, cached->logprobs[0].logprob);
    }
  }
}

}  // namespace
}  // namespace fovea
