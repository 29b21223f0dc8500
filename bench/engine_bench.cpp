// What the engine itself costs: steps of many sequences around a runner that computes nothing.

#include <benchmark/benchmark.h>
#include <deque>
#include <future>
#include <vector>

#include "engine/engine_loop.h"

namespace fovea {
namespace {

constexpr int kTokens = 200;

// Every token is the same word, at once.
class IdleRunner final : public StepRunner {
 public:
  int depth() const override { return 1; }
  Status launch(const StepPlan& plan) override {
    StepOutput output;
    for (const PlannedRows& rows : plan.rows) {
      if (rows.samples) output.tokens.push_back({.token = Token::text(TokenId{7})});
    }
    done_.push_back(std::move(output));
    return {};
  }
  Result<StepOutput> collect() override {
    StepOutput output = std::move(done_.front());
    done_.pop_front();
    return output;
  }
  Result<std::shared_ptr<const EncodedImage>> upload(const ImageIdentity&,
                                                     const HostEmbeddings&) override {
    return Error{ErrorCode::kUnsupported, "no pictures"};
  }
  Result<HostEmbeddings> download(const EncodedImage&) override {
    return Error{ErrorCode::kUnsupported, "no pictures"};
  }

 private:
  std::deque<StepOutput> done_;
};

class Counting final : public SkillState {
 public:
  const std::vector<Token>& prompt() const override { return prompt_; }
  int max_new_tokens() const override { return kTokens; }
  TokenRule next_rule() const override { return {}; }
  Progress consume(const SampledToken&) override { return Progress::kContinue; }
  void finish(Response&) override {}

 private:
  std::vector<Token> prompt_ = std::vector<Token>(40, Token::text(TokenId{5}));
};

// Time of a step of `sequences` decoding sequences, the engine's part alone.
void engine_step(benchmark::State& state) {
  const int sequences = static_cast<int>(state.range(0));
  IdleRunner runner;
  PageAllocator pages(sequences * 32);
  LoopOptions options;
  options.scheduler.max_sequences = sequences;
  options.scheduler.max_rows = 4096;
  EngineLoop loop(
      runner, pages,
      {.bos = TokenId{1},
       .eos = TokenId{0},
       .vocab_size = 100,
       .max_context = 400,
       .page_size = 16,
       .crops = {}},
      [](const Request&) -> Result<std::unique_ptr<SkillState>> {
        return std::unique_ptr<SkillState>(std::make_unique<Counting>());
      },
      options);
  std::int64_t steps = 0;
  for (auto _ : state) {
    std::vector<std::future<void>> done;
    const std::int64_t before = loop.stats().num_steps;
    for (int i = 0; i < sequences; ++i) {
      auto promise = std::make_shared<std::promise<void>>();
      done.push_back(promise->get_future());
      (void)loop.submit(Request{.skill = QueryRequest{"question", {}, {}}},
                        {.on_done = [promise](Result<Response>) { promise->set_value(); }});
    }
    for (auto& future : done) future.wait();
    steps += loop.stats().num_steps - before;
  }
  state.counters["us_per_step"] = benchmark::Counter(
      static_cast<double>(steps) / 1e6, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(engine_step)
    ->Arg(1)
    ->Arg(16)
    ->Arg(64)
    ->Arg(256)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace fovea

BENCHMARK_MAIN();
