#pragma once

#include <future>
#include <gtest/gtest.h>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine_loop.h"
#include "support/fake_adapter_store.h"
#include "support/fake_runner.h"
#include "support/pages.h"

namespace fovea::testing_support {

inline constexpr int kImageTokens = 40, kVocab = 50, kContext = 256;
inline constexpr TokenId kEos{0};

inline constexpr TokenId kAfterNine[] = {TokenId{1}, TokenId{2}, TokenId{3}};

// Words of the question are its bytes; the answer is what comes until end-of-sequence. Behind a
// nine only a few words may follow.
class WordSkill final : public SkillState {
 public:
  WordSkill(const std::string& question, int budget) : budget_(budget) {
    for (const char c : question) prompt_.push_back(Token::text(TokenId{c}));
  }
  const std::vector<Token>& prompt() const override { return prompt_; }
  int max_new_tokens() const override { return budget_; }
  TokenRule next_rule() const override {
    if (!after_nine_) return {};
    return {.allowed = kAfterNine, .suppressed = {}};
  }
  std::optional<RuleAhead> rule_ahead() const override { return RuleAhead{Token::Kind::kText, {}}; }
  Progress consume(const SampledToken& sampled) override {
    if (sampled.token.id == kEos) return Progress::kStop;
    after_nine_ = sampled.token.id.value() == 9;
    pending_ += static_cast<char>('0' + sampled.token.id.value());
    return Progress::kContinue;
  }
  std::string take_text() override {
    all_ += pending_;
    return std::exchange(pending_, {});
  }
  void finish(Response& response) override { response.text = all_ + pending_; }

 private:
  std::vector<Token> prompt_;
  int budget_;
  std::string all_, pending_;
  bool after_nine_ = false;
};

inline Result<std::unique_ptr<SkillState>> make_skill(const Request& request) {
  const auto& query = std::get<QueryRequest>(request.skill);
  if (query.question.empty()) return Error{ErrorCode::kInvalidArgument, "question is empty"};
  return std::unique_ptr<SkillState>(
      std::make_unique<WordSkill>(query.question, request.sampling.max_tokens.value_or(40)));
}

inline Image picture(int shade) {
  Image image{8, 8, std::vector<std::uint8_t>(8 * 8 * 3, static_cast<std::uint8_t>(shade))};
  image.rgb[0] = static_cast<std::uint8_t>(shade / 256);
  return image;
}

inline Request ask(std::string question, std::optional<Picture> about = {},
                   std::uint64_t seed = 0) {
  Request request{.skill = QueryRequest{std::move(question), {}, {}}, .picture = std::move(about)};
  request.sampling.seed = seed;
  return request;
}

/// A loop around a fake model.
struct Rig {
  explicit Rig(int max_sequences = 16, int num_pages = 400, int depth = 1, int max_queue = 1 << 20,
               FakeAdapterStore* adapters = nullptr)
      : runner(depth, kPageSize, kVocab, adapters), pages(num_pages) {
    LoopOptions options;
    options.scheduler.max_sequences = max_sequences;
    options.scheduler.max_rows = kImageTokens + 1 + max_sequences + 16;
    options.image_cache_bytes = 1 << 20;
    options.max_queue = max_queue;
    const ModelFacts facts{.bos = TokenId{1},
                           .eos = kEos,
                           .vocab_size = kVocab,
                           .image_tokens = kImageTokens,
                           .max_context = kContext,
                           .page_size = kPageSize,
                           .crops = {28, 14, 0, 4}};
    loop.emplace(runner, pages, facts, make_skill, options, adapters);
  }

  std::future<Result<Response>> submit(Request request, std::uint64_t* id = nullptr,
                                       StreamCallback on_text = {}) {
    auto answer = std::make_shared<std::promise<Result<Response>>>();
    std::future<Result<Response>> future = answer->get_future();
    const Result<std::uint64_t> submitted = loop->submit(
        std::move(request),
        {.on_text = std::move(on_text), .on_done = [answer](Result<Response> response) {
           answer->set_value(std::move(response));
         }});
    if (!submitted.ok()) answer->set_value(submitted.error());
    if (submitted.ok() && id != nullptr) *id = *submitted;
    return future;
  }

  Result<Response> run(Request request) { return submit(std::move(request)).get(); }

  void expect_nothing_left() {
    loop->drop_caches();
    const EngineStats stats = loop->stats();
    EXPECT_EQ(stats.pages_free, stats.pages_total);
    EXPECT_EQ(stats.num_running, 0);
    EXPECT_EQ(stats.num_waiting, 0);
    EXPECT_FALSE(runner.misread);
  }

  FakeRunner runner;
  PageAllocator pages;
  std::optional<EngineLoop> loop;
};

}  // namespace fovea::testing_support
