#include "backend/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "conformance/conformance.h"

namespace fovea::conformance {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class Sampler : public ConformanceTest {
 protected:
  struct Answer {
    Ints ids;
    Floats logprobs;
  };

  Answer sample(const Floats& logits, const std::vector<SamplingRow>& rows,
                const Ints& masks = {}) {
    const auto count = static_cast<std::int64_t>(rows.size());
    const auto vocab = static_cast<std::int64_t>(logits.size()) / count;
    const Guarded input = Guarded::of(logits, {count, vocab});
    const Guarded ids(DType::kI32, {count});
    const Guarded logprobs(DType::kF32, {count});
    ops().sample(stream(), {input.view(), rows, masks, ids.view(), logprobs.view()});
    ids.check_guards();
    logprobs.check_guards();
    return {ids.ints(), logprobs.floats()};
  }

  // How often each word of `logits` is drawn at `draws` positions.
  std::vector<int> histogram(const Floats& logits, SamplingRow row, int draws,
                             const Ints& masks = {}) {
    draws = repetitions(draws);
    std::vector<int> counts(logits.size());
    for (int position = 0; position < draws; ++position) {
      row.position = static_cast<std::uint64_t>(position);
      ++counts[static_cast<std::size_t>(sample(logits, {row}, masks).ids[0])];
    }
    return counts;
  }

  // Pearson's statistic against `p`; words of probability 0 must not be drawn.
  static double chi_square(const std::vector<int>& counts, const Doubles& p) {
    double draws = 0;
    for (const int count : counts) draws += count;
    double statistic = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      if (p[i] == 0) {
        EXPECT_EQ(counts[i], 0) << "word " << i;
      } else {
        statistic += std::pow(counts[i] - draws * p[i], 2) / (draws * p[i]);
      }
    }
    return statistic;
  }
};

// Probabilities 0.4, 0.3, 0.2, 0.1 in a scrambled order.
const Floats kFour = {std::log(0.2f), std::log(0.4f), std::log(0.1f), std::log(0.3f)};

TEST_P(Sampler, GreedyTakesTheLowestOfEqualLogits) {
  Floats logits = random_floats(3 * 5000, 1, 5);
  logits[77] = logits[4000] = 20;
  const Answer answer = sample(logits, {{}, {}, {}});
  for (std::size_t r = 0; r < 3; ++r) {
    const std::span<const float> row(logits.data() + r * 5000, 5000);
    const auto best = std::max_element(row.begin(), row.end()) - row.begin();
    EXPECT_EQ(answer.ids[r], best);
    EXPECT_NEAR(answer.logprobs[r],
                std::log(reference::softmax(row)[static_cast<std::size_t>(best)]), 2e-6);
  }
  EXPECT_EQ(answer.ids[0], 77);
}

TEST_P(Sampler, MasksComeFirst) {
  const Floats logits = {5, 9, 7, 8, 1, 6};
  const Ints masks = {4, 2, 0, 2, 1, 3};  // allowed 4 2 0, then suppressed 2, then 1 3
  SamplingRow row;
  row.allowed_count = 3;
  EXPECT_EQ(sample(logits, {row}, masks).ids[0], 2);
  row.suppressed_begin = 3;
  row.suppressed_count = 1;  // even though it is allowed
  Answer answer = sample(logits, {row}, masks);
  EXPECT_EQ(answer.ids[0], 0);
  EXPECT_NEAR(answer.logprobs[0], -std::log(1 + std::exp(-4.0)), 2e-6);
  SamplingRow suppressed;
  suppressed.suppressed_begin = 4;
  suppressed.suppressed_count = 2;
  answer = sample(logits, {suppressed}, masks);
  EXPECT_EQ(answer.ids[0], 2);
  EXPECT_NEAR(answer.logprobs[0], -std::log(1 + std::exp(-1.0) + std::exp(-2.0) + std::exp(-6.0)),
              2e-6);
}

TEST_P(Sampler, DrawsFollowTheSoftmax) {
  for (const float temperature : {1.0f, 0.5f, 2.0f}) {
    SamplingRow row;
    row.temperature = temperature;
    row.seed = 42;
    const auto counts = histogram(kFour, row, 20000);
    // 3 degrees of freedom: above 16.3 once in a thousand seeds.
    EXPECT_LT(chi_square(counts, reference::softmax(kFour, static_cast<double>(temperature))),
              16.3);
  }
}

TEST_P(Sampler, DrawsOverManyWordsFollowTheSoftmax) {
  const Floats logits = random_floats(101, 3, 2);
  SamplingRow row;
  row.temperature = 1;
  row.seed = 7;
  // 100 degrees of freedom: above 149.4 once in a thousand seeds.
  EXPECT_LT(chi_square(histogram(logits, row, 30000), reference::softmax(logits)), 149.4);
}

TEST_P(Sampler, TopPDropsAWordWhenTheMassBeforeItExceedsTheLimit) {
  SamplingRow row;
  row.temperature = 1;
  row.seed = 3;
  row.top_p = 0.39f;  // 0 <= 0.39: the first stays; 0.4 > 0.39: the second goes
  EXPECT_EQ(chi_square(histogram(kFour, row, 200), {0, 1, 0, 0}), 0);
  row.top_p = 0.41f;  // 0.4 <= 0.41: the second stays; 0.7 goes
  EXPECT_LT(chi_square(histogram(kFour, row, 20000), {0, 4 / 7.0, 0, 3 / 7.0}), 10.9);
  row.top_p = 0.0f;
  EXPECT_EQ(chi_square(histogram(kFour, row, 200), {0, 1, 0, 0}), 0);
  row.top_p = 1.0f;
  EXPECT_LT(chi_square(histogram(kFour, row, 20000), {0.2, 0.4, 0.1, 0.3}), 16.3);
}

TEST_P(Sampler, TopPOverManyWordsMatchesASortedScan) {
  const Floats logits = random_floats(3000, 5, 6);
  SamplingRow row;
  row.temperature = 1.3f;
  row.top_p = 0.9f;
  row.seed = 11;
  const Doubles p = reference::softmax(logits, 1.3);
  std::vector<std::size_t> order(p.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] > p[b]; });
  std::vector<bool> kept(p.size());
  double before = 0;
  for (const std::size_t i : order) {
    if (before > 0.9) break;
    kept[i] = true;
    before += p[i];
  }
  const auto counts = histogram(logits, row, 3000);
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (!kept[i]) {
      EXPECT_EQ(counts[i], 0) << "word " << i;
    }
  }
}

TEST_P(Sampler, TopKKeepsTheLowestIdsOfEqualWords) {
  SamplingRow row;
  row.temperature = 1;
  row.seed = 5;
  row.top_k = 1;
  EXPECT_EQ(chi_square(histogram(kFour, row, 100), {0, 1, 0, 0}), 0);
  row.top_k = 3;
  EXPECT_LT(chi_square(histogram(kFour, row, 20000), {2 / 9.0, 4 / 9.0, 0, 3 / 9.0}), 13.9);
  row.top_k = 99;
  EXPECT_LT(chi_square(histogram(kFour, row, 20000), {0.2, 0.4, 0.1, 0.3}), 16.3);
  row.top_k = 2;
  EXPECT_LT(chi_square(histogram({1, 1, 1, 1}, row, 20000), {0.5, 0.5, 0, 0}), 10.9);
}

TEST_P(Sampler, ManyEqualWordsAreCutByTheirIds) {
  for (const std::size_t vocab : {200, 600, 5003}) {
    const Floats logits(vocab, 1.5f);
    SamplingRow by_number;
    by_number.temperature = 0.7f;
    by_number.top_k = 3;
    SamplingRow by_mass = by_number;
    by_mass.top_k = 0;
    by_mass.top_p = 2.5f / static_cast<float>(vocab);  // 0, 1 and 2 words before: three stay
    SamplingRow by_both = by_mass;
    by_both.top_k = 5;
    by_both.top_p = 0.5f;  // of five words: 0, 1 and 2 before
    for (SamplingRow row : {by_number, by_mass, by_both}) {
      std::vector<int> counts(vocab);
      for (row.position = 0; row.position < 60; ++row.position) {
        ++counts[static_cast<std::size_t>(sample(logits, {row}).ids[0])];
      }
      EXPECT_EQ(counts[0] + counts[1] + counts[2], 60) << vocab << " words";
      EXPECT_GT(counts[2], 0) << vocab << " words";
    }
  }
}

TEST_P(Sampler, TopPCountsTheMassThatTopKLeft) {
  SamplingRow row;
  row.temperature = 1;
  row.seed = 6;
  row.top_k = 2;     // 0.4 and 0.3 become 4/7 and 3/7
  row.top_p = 0.5f;  // 4/7 > 0.5: only the first is left
  EXPECT_EQ(chi_square(histogram(kFour, row, 200), {0, 1, 0, 0}), 0);
}

TEST_P(Sampler, MinPIsRelativeToTheLikeliestWord) {
  SamplingRow row;
  row.temperature = 1;
  row.seed = 8;
  row.min_p = 0.49f;  // 0.2 of 0.4 stays, 0.1 goes
  EXPECT_LT(chi_square(histogram(kFour, row, 20000), {2 / 9.0, 4 / 9.0, 0, 3 / 9.0}), 13.9);
  row.min_p = 5;
  EXPECT_EQ(chi_square(histogram(kFour, row, 100), {0, 1, 0, 0}), 0);
}

TEST_P(Sampler, AllowedListIsDrawnFromAlone) {
  SamplingRow row;
  row.temperature = 1;
  row.seed = 9;
  row.allowed_count = 3;
  const Ints masks = {3, 2, 3};  // a repeated id counts once
  EXPECT_LT(chi_square(histogram(kFour, row, 20000, masks), {0, 0, 0.25, 0.75}), 10.9);
}

TEST_P(Sampler, EqualSeedsDrawEqually) {
  const Floats logits = random_floats(500, 12, 3);
  std::vector<Ints> runs;
  for (const std::uint64_t seed : {1u, 1u, 2u}) {
    Ints ids;
    for (std::uint64_t position = 0; position < 50; ++position) {
      SamplingRow row;
      row.temperature = 1;
      row.seed = seed;
      row.position = position;
      ids.push_back(sample(logits, {row}).ids[0]);
    }
    runs.push_back(ids);
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_NE(runs[0], runs[2]);
}

TEST_P(Sampler, RowsDoNotDependOnTheirNeighbours) {
  const Floats logits = random_floats(300, 13, 3);
  Floats twice = logits;
  twice.insert(twice.end(), logits.begin(), logits.end());
  SamplingRow row;
  row.temperature = 0.9f;
  row.seed = 21;
  row.position = 4;
  SamplingRow other;
  const Answer alone = sample(logits, {row});
  const Answer pair = sample(twice, {other, row});
  EXPECT_EQ(pair.ids[1], alone.ids[0]);
  EXPECT_EQ(pair.logprobs[1], alone.logprobs[0]);
}

TEST_P(Sampler, LogprobIsAtTemperatureOne) {
  SamplingRow row;
  row.temperature = 3;
  row.top_k = 2;
  row.seed = 1;
  const Answer answer = sample(kFour, {row});
  EXPECT_NEAR(answer.logprobs[0], kFour[static_cast<std::size_t>(answer.ids[0])], 1e-6);
}

// One row whose logits are changed; checked word by word against the reference.
class ChangedLogits : public Sampler {
 protected:
  // Lists the likeliest words as well as it draws: every greedy choice and every listed number must
  // be the reference's.
  void check(const Floats& logits, const reference::LogitChanges& changes,
             std::int32_t num_top = kMaxTopWords) {
    std::vector<SeenWord> seen;
    for (std::size_t i = 0; i < changes.seen_ids.size(); ++i) {
      seen.push_back({changes.seen_ids[i], changes.seen_counts[i]});
    }
    std::vector<WordBias> biases;
    for (std::size_t i = 0; i < changes.bias_ids.size(); ++i) {
      biases.push_back({changes.bias_ids[i], changes.bias[i]});
    }
    SamplingRow row;
    row.allowed_count = static_cast<std::int32_t>(changes.allowed.size());
    row.repetition_penalty = static_cast<float>(changes.repetition_penalty);
    row.presence_penalty = static_cast<float>(changes.presence_penalty);
    row.frequency_penalty = static_cast<float>(changes.frequency_penalty);
    row.seen_count = static_cast<std::int32_t>(seen.size());
    row.bias_count = static_cast<std::int32_t>(biases.size());
    row.num_top = num_top;
    // The second row asks for nothing and must be as it is alone.
    const std::vector<SamplingRow> rows = {row, SamplingRow{}};
    Floats twice = logits;
    twice.insert(twice.end(), logits.begin(), logits.end());
    const auto vocab = static_cast<std::int64_t>(logits.size());
    const Guarded input = Guarded::of(twice, {2, vocab});
    const Guarded ids(DType::kI32, {2});
    const Guarded logprobs(DType::kF32, {2});
    const Guarded top_ids(DType::kI32, {2, kMaxTopWords});
    const Guarded top_logprobs(DType::kF32, {2, kMaxTopWords});
    ops().sample(stream(), {.logits = input.view(),
                            .rows = rows,
                            .mask_ids = changes.allowed,
                            .ids = ids.view(),
                            .logprobs = logprobs.view(),
                            .seen = seen,
                            .biases = biases,
                            .top_ids = top_ids.view(),
                            .top_logprobs = top_logprobs.view()});
    EXPECT_EQ(input.floats(), twice) << "the logits were changed";
    const Doubles expected = reference::changed_logprobs(logits, changes);
    const auto words = static_cast<std::size_t>(num_top);
    Ints order;
    for (std::int32_t i = 0; i < vocab; ++i) {
      if (expected[static_cast<std::size_t>(i)] > -static_cast<double>(kInfinity)) {
        order.push_back(i);
      }
    }
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
      return expected[static_cast<std::size_t>(a)] > expected[static_cast<std::size_t>(b)];
    });
    const auto expect_word = [&](std::int32_t id, float logprob, std::size_t rank) {
      EXPECT_EQ(id, order[rank]) << "rank " << rank << " of " << vocab;
      EXPECT_NEAR(logprob, expected[static_cast<std::size_t>(order[rank])], 1e-5);
    };
    expect_word(ids.ints()[0], logprobs.floats()[0], 0);
    for (std::size_t i = 0; i < static_cast<std::size_t>(kMaxTopWords); ++i) {
      if (i < words && i < order.size()) {
        expect_word(top_ids.ints()[i], top_logprobs.floats()[i], i);
      } else {
        EXPECT_EQ(top_ids.ints()[i], -1) << "rank " << i;
        EXPECT_EQ(top_logprobs.floats()[i], -kInfinity) << "rank " << i;
      }
      EXPECT_EQ(top_ids.ints()[static_cast<std::size_t>(kMaxTopWords) + i], -1);
    }
    const Answer plain = sample(logits, {SamplingRow{}});
    EXPECT_EQ(ids.ints()[1], plain.ids[0]);
    EXPECT_EQ(logprobs.floats()[1], plain.logprobs[0]);
    for (const Guarded* out : {&ids, &logprobs, &top_ids, &top_logprobs}) out->check_guards();
  }

  // The `count` likeliest words: changing any other would hardly show.
  static Ints likeliest(const Floats& logits, std::size_t count) {
    Ints order(logits.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
      return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    order.resize(std::min(order.size(), count));
    return order;
  }
};

TEST_P(ChangedLogits, RepetitionPenaltyPullsSeenWordsTowardsLess) {
  for (const double penalty : {1.3, 2.0, 0.5}) {
    check({3, -2, 1, -1, 0, 2.5f},
          {.repetition_penalty = penalty, .seen_ids = {0, 1, 4, 5}, .seen_counts = {0, 0, 1, 7}});
  }
}

TEST_P(ChangedLogits, PresencePenaltyCountsWordsOfTheAnswerOnce) {
  check({3, 2.9f, 2.8f, 2.7f},
        {.presence_penalty = 0.75, .seen_ids = {0, 1, 2}, .seen_counts = {0, 1, 5}});
  check({3, 2.9f, 2.8f, 2.7f},
        {.presence_penalty = -0.75, .seen_ids = {0, 1, 2}, .seen_counts = {0, 1, 5}});
}

TEST_P(ChangedLogits, FrequencyPenaltyCountsEveryOccurrenceInTheAnswer) {
  check({3, 2.9f, 2.8f, 2.7f},
        {.frequency_penalty = 0.3, .seen_ids = {0, 1, 2}, .seen_counts = {0, 1, 5}});
  check({3, 2.9f, 2.8f, 2.7f},
        {.frequency_penalty = -0.3, .seen_ids = {3, 2}, .seen_counts = {2, 1}});
}

TEST_P(ChangedLogits, BiasesAddToLogits) {
  check({3, 2.9f, 2.8f, 2.7f}, {.bias_ids = {3, 0}, .bias = {0.25f, -100}});
  check({3, 2.9f, 2.8f, 2.7f}, {.bias_ids = {2}, .bias = {100}});
}

TEST_P(ChangedLogits, TopWordsComeLikeliestFirstAndLowestIdOnTies) {
  check({1, 4, 2, 4, 3, 4, 2}, {}, 5);
  check({1, 4, 2, 4, 3, 4, 2}, {}, 1);
  check({1, 4, 2, 4, 3, 4, 2}, {}, 0);
}

TEST_P(ChangedLogits, ImpossibleWordsAreNotListed) {
  check({1, -kInfinity, 2, 3}, {});
  check({1, 5, 2, 3}, {.bias_ids = {1}, .bias = {-kInfinity}});
}

TEST_P(ChangedLogits, AllTogetherOnOddVocabularies) {
  for (const std::int64_t vocab : {1, 7, 31, 257, 5003, 51200}) {
    const Floats logits = random_floats(vocab, 60 + static_cast<std::uint64_t>(vocab), 8);
    const Ints best = likeliest(logits, 12);
    reference::LogitChanges changes{
        .repetition_penalty = 1.2, .presence_penalty = 0.4, .frequency_penalty = 0.15};
    for (std::size_t i = 0; i < best.size(); ++i) {
      if (i % 2 == 0) {
        changes.seen_ids.push_back(best[i]);
        changes.seen_counts.push_back(static_cast<std::int32_t>(i / 2));
      }
      if (i % 3 == 0) {
        changes.bias_ids.push_back(best[i]);
        changes.bias.push_back(i % 2 == 0 ? -1.5f : 0.7f);
      }
    }
    check(logits, changes);
    for (std::size_t i = 0; i < best.size(); i += 2) changes.allowed.push_back(best[i]);
    check(logits, changes);
  }
}

TEST_P(ChangedLogits, DrawsFollowTheChangedDistribution) {
  const std::vector<SeenWord> seen = {{1, 1}};
  const std::vector<WordBias> biases = {{3, std::log(0.5f)}};
  std::vector<int> counts(4);
  const auto draws = static_cast<std::uint64_t>(repetitions(20000));
  for (std::uint64_t position = 0; position < draws; ++position) {
    const std::vector<SamplingRow> rows = {{.temperature = 1,
                                            .seed = 31,
                                            .position = position,
                                            .presence_penalty = std::log(2.0f),
                                            .seen_count = 1,
                                            .bias_count = 1}};
    const Guarded id(DType::kI32, {1});
    const Guarded logprob(DType::kF32, {1});
    const Guarded input = Guarded::of(kFour, {1, 4});
    ops().sample(stream(), {.logits = input.view(),
                            .rows = rows,
                            .mask_ids = {},
                            .ids = id.view(),
                            .logprobs = logprob.view(),
                            .seen = seen,
                            .biases = biases});
    ++counts[static_cast<std::size_t>(id.ints()[0])];
  }
  // 0.4 and 0.3 become half as much.
  EXPECT_LT(chi_square(counts, {0.2 / 0.65, 0.2 / 0.65, 0.1 / 0.65, 0.15 / 0.65}), 16.3);
}

TEST_P(ChangedLogits, WordsOutsideTheVocabularyAreIgnored) {
  const std::vector<SeenWord> seen = {{-1, 1}, {99, 1}};
  const std::vector<WordBias> biases = {{4, 50}, {-7, 50}};
  const std::vector<SamplingRow> rows = {{.presence_penalty = 1, .seen_count = 2, .bias_count = 2}};
  const Guarded id(DType::kI32, {1});
  const Guarded logprob(DType::kF32, {1});
  const Guarded input = Guarded::of(kFour, {1, 4});
  ops().sample(stream(), {.logits = input.view(),
                          .rows = rows,
                          .mask_ids = {},
                          .ids = id.view(),
                          .logprobs = logprob.view(),
                          .seen = seen,
                          .biases = biases});
  EXPECT_EQ(id.ints()[0], 1);
  EXPECT_NEAR(logprob.floats()[0], kFour[1], 1e-6);
}

// Rows of many segments, each drawn from as a scan of all words in double precision would.
class ManyWords : public ConformanceTest {
 protected:
  // The words of `logits`, likeliest first.
  static Ints ordered(std::span<const float> logits) {
    Ints order(logits.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
      return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    return order;
  }

  static std::int32_t drawn(std::span<const float> logits, const Ints& order,
                            const SamplingRow& row) {
    const auto logit = [&](std::int32_t id) {
      return static_cast<double>(logits[static_cast<std::size_t>(id)]);
    };
    std::vector<std::pair<std::int32_t, double>> words;
    double total = 0, before = 0, left = 0;
    for (const std::int32_t id : order) {
      if (row.top_k > 0 && words.size() == static_cast<std::size_t>(row.top_k)) break;
      const double away = (logit(order[0]) - logit(id)) / static_cast<double>(row.temperature);
      words.emplace_back(id, std::exp(-away));
      total += words.back().second;
    }
    for (std::size_t i = 0; i < words.size() && row.top_p < 1; ++i) {
      if (before > static_cast<double>(row.top_p) * total) words.resize(i);
      if (i < words.size()) before += words[i].second;
    }
    std::erase_if(words,
                  [&](const auto& word) { return word.second < static_cast<double>(row.min_p); });
    std::sort(words.begin(), words.end());
    for (const auto& word : words) left += word.second;
    left *= cpu::uniform_draw(row.seed, row.position);
    for (const auto& word : words) {
      left -= word.second;
      if (left < 0) return word.first;
    }
    return words.back().first;
  }

  void check(const Floats& logits, const std::string& what) {
    std::vector<SamplingRow> rows;
    for (const float temperature : {0.8f, 1.0f, 1.7f}) {
      rows.push_back({.temperature = temperature});
      rows.push_back({.temperature = temperature, .min_p = 0.05f});
      rows.push_back({.temperature = temperature, .top_p = 0.9f});
      rows.push_back({.temperature = temperature, .top_p = 0.3f, .min_p = 0.5f});
      rows.push_back({.temperature = temperature, .top_p = 0.95f, .num_top = kMaxTopWords});
      rows.push_back({.temperature = temperature, .top_k = 50, .num_top = 3});
      rows.push_back({.temperature = temperature, .top_p = 0.9f, .min_p = 0.02f, .top_k = 40});
      rows.push_back({.temperature = temperature, .top_p = 0.7f, .top_k = 3000});
      rows.push_back({.num_top = kMaxTopWords});
    }
    check(logits, std::move(rows), what);
  }

  void check(const Floats& logits, std::vector<SamplingRow> rows, const std::string& what) {
    const Ints order = ordered(logits);
    const Doubles p = reference::softmax(logits);
    Floats repeated;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      rows[r].seed = 100 + r;
      repeated.insert(repeated.end(), logits.begin(), logits.end());
    }
    const auto count = static_cast<std::int64_t>(rows.size());
    const Guarded input = Guarded::of(repeated, {count, static_cast<std::int64_t>(logits.size())});
    const Guarded ids(DType::kI32, {count});
    const Guarded logprobs(DType::kF32, {count});
    const Guarded top_ids(DType::kI32, {count, kMaxTopWords});
    const Guarded top_logprobs(DType::kF32, {count, kMaxTopWords});
    ops().sample(stream(), {.logits = input.view(),
                            .rows = rows,
                            .mask_ids = {},
                            .ids = ids.view(),
                            .logprobs = logprobs.view(),
                            .top_ids = top_ids.view(),
                            .top_logprobs = top_logprobs.view()});
    for (const Guarded* out : {&ids, &logprobs, &top_ids, &top_logprobs}) out->check_guards();
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const std::int32_t id = ids.ints()[r];
      EXPECT_EQ(id, rows[r].temperature > 0 ? drawn(logits, order, rows[r]) : order[0])
          << what << ", row " << r;
      EXPECT_NEAR(logprobs.floats()[r], std::log(p[static_cast<std::size_t>(id)]), 1e-5);
      for (std::size_t i = 0; i < static_cast<std::size_t>(kMaxTopWords); ++i) {
        const bool is_listed = i < static_cast<std::size_t>(rows[r].num_top) && i < order.size();
        EXPECT_EQ(top_ids.ints()[r * kMaxTopWords + i], is_listed ? order[i] : -1)
            << what << ", row " << r << ", rank " << i;
      }
    }
  }
};

TEST_P(ManyWords, AreDrawnAsAScanOfAllWouldDraw) {
  for (const std::int64_t vocab : {1023, 1024, 1025, 9000, 51200}) {
    const std::string what = std::to_string(vocab) + " words";
    Floats logits = random_floats(vocab, 90 + static_cast<std::uint64_t>(vocab), 12);
    check(logits, what + ", evenly likely");
    Floats some = logits;
    for (std::size_t i = 0; i < some.size(); i += 5) some[i] = -kInfinity;
    check(some, what + ", evenly likely, a fifth impossible");
    // Noise, and a few words above it, as a model has them.
    const Floats more = random_floats(2 * vocab, 91 + static_cast<std::uint64_t>(vocab), 5);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      logits[i] = 0.4f * logits[i] + more[2 * i] + more[2 * i + 1];
    }
    for (std::size_t i = 0; i < 9; ++i) logits[i * logits.size() / 9] = 12 + more[i];
    check(logits, what + ", a few more likely");
    for (std::size_t i = 0; i < logits.size() / 9; ++i) logits[i] += 20;
    check(logits, what + ", the likely ones side by side");
    for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7) / 7;
    check(logits, what + ", thousands of equals");
  }
}

// A limit that is passed a ten-thousandth before or behind the last word of a level.
TEST_P(ManyWords, EndWhereManyEqualsEnd) {
  constexpr std::size_t kVocab = 51200, kLevels = 256;
  constexpr float kStep = 0.05f;
  Floats logits(kVocab);
  for (std::size_t i = 0; i < kVocab; ++i) logits[i] = -kStep * static_cast<float>(i % kLevels);
  double all = 0, before = 0;
  const auto mass = [](std::size_t level) { return std::exp(-kStep * static_cast<double>(level)); };
  for (std::size_t level = 0; level < kLevels; ++level) all += mass(level);
  std::vector<SamplingRow> rows;
  for (std::size_t level = 0; level < 32; ++level) {
    before += mass(level);
    for (const double change : {-1e-4, 1e-4}) {
      const auto top_p = static_cast<float>(before / all * (1 + change));
      rows.push_back({.temperature = 1, .top_p = top_p});
    }
  }
  check(logits, std::move(rows), "levels of equals");
}

// More than the shared memory of a device's blocks holds.
TEST_P(ManyWords, MayBeHundredsOfThousands) {
  const Floats logits = random_floats(300'001, 95, 12);
  check(logits,
        {{.temperature = 1},
         {.temperature = 0.8f, .top_p = 0.9f},
         {.temperature = 1.7f, .top_p = 0.7f, .top_k = 100'000, .num_top = 3}},
        "300,001 words");
}

// Words that each count nothing may together count a little: whoever is drawn then is a word.
TEST_P(Sampler, AWordIsDrawnWhereNoneCounts) {
  constexpr std::size_t kVocab = 51200;
  Floats logits(kVocab, -32.2f * std::log(2.0f));
  logits[0] = 0;
  SamplingRow row;
  row.temperature = 1;
  row.seed = 17;
  while (cpu::uniform_draw(row.seed, row.position) < 1 - 2e-6) ++row.position;
  const Answer answer = sample(logits, {row});
  ASSERT_GE(answer.ids[0], 0);
  ASSERT_LT(answer.ids[0], static_cast<std::int32_t>(kVocab));
  EXPECT_NEAR(answer.logprobs[0], logits[static_cast<std::size_t>(answer.ids[0])], 1e-4);
}

TEST_P(Sampler, TheLeastTemperatureTakesTheLikeliest) {
  SamplingRow row;
  row.temperature = std::numeric_limits<float>::denorm_min();
  SamplingRow cut = row;
  cut.top_p = 0.9f;
  SamplingRow few = cut;
  few.top_k = 2;
  for (const SamplingRow& each : {row, cut, few}) {
    EXPECT_EQ(sample(kFour, {each}).ids[0], 1);
    EXPECT_NEAR(sample(kFour, {each}).logprobs[0], kFour[1], 2e-6);
  }
  row.temperature = 1e-12f;
  row.top_k = 1;
  for (row.position = 0; row.position < 20; ++row.position) {
    EXPECT_EQ(sample({2, 2, 2, 2}, {row}).ids[0], 0);
  }
}

TEST_P(Sampler, NanLosesAndNothingCrashes) {
  SamplingRow warm;
  warm.temperature = 1;
  warm.top_p = 0.9f;
  for (const SamplingRow& row : {SamplingRow{}, warm}) {
    EXPECT_EQ(sample({kNan, 1, kNan}, {row}).ids[0], 1);
    EXPECT_EQ(sample({kNan, kNan, kNan}, {row}).ids[0], 0);
    EXPECT_EQ(sample({-kInfinity, -kInfinity}, {row}).ids[0], 0);
    EXPECT_EQ(sample({1, kInfinity, kInfinity}, {row}).ids[0], 1);
    SamplingRow allowed = row;
    allowed.allowed_count = 2;
    EXPECT_EQ(sample({5, kNan, kNan}, {allowed}, {2, 1}).ids[0], 1);
    SamplingRow none = row;
    none.suppressed_count = 2;
    const Answer answer = sample({5, 6}, {none}, {0, 1});
    EXPECT_EQ(answer.ids[0], 0);
    EXPECT_EQ(answer.logprobs[0], -kInfinity);
  }
}

FOVEA_CONFORMANCE(Sampler);
FOVEA_CONFORMANCE(ChangedLogits);
FOVEA_CONFORMANCE(ManyWords);

// The known-answer vectors that the authors of Philox publish with their code.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(cpu::philox(0, 0),
            (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
}

}  // namespace
}  // namespace fovea::conformance
