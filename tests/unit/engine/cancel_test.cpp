// Cancels at random moments, on the model in the box: nothing may stay behind.

#include <atomic>
#include <boost/json.hpp>
#include <condition_variable>
#include <cstdlib>
#include <gtest/gtest.h>
#include <map>
#include <mutex>
#include <random>

#include "fovea/engine.h"
#include "fovea/picture.h"

#include "support/instrumented.h"

namespace fovea {
namespace {

// FOVEA_CANCELS=10000 is what bench/results/cpu/engine.md records.
// Requests that are to end by a cancel.
int num_cancels() {
  const char* given = std::getenv("FOVEA_CANCELS");
  if (given != nullptr) return std::atoi(given);
  return testing_support::kInstrumented ? 40 : 400;
}

// Every second one has been seen before; small ones, and some of several crops.
Picture picture(std::mt19937& random) {
  const auto shade = static_cast<std::uint8_t>(random() % 2 == 0 ? random() % 4 : random());
  const int size = random() % 8 == 0 ? 500 : 100;
  return Image{size, size, std::vector<std::uint8_t>(std::size_t{3} * size * size, shade)};
}

Request draw(std::mt19937& random) {
  Request request;
  switch (random() % 4) {
    case 0:
      request.skill = CaptionRequest{CaptionLength::kLong};
      break;
    case 1:
      request.skill = DetectRequest{"circle", 8};
      break;
    case 2:
      request.skill = QueryRequest{"How many things are there?", true, {}, {}};
      break;
    default:
      request.skill = QueryRequest{"What is this?", false, {}, {}};
  }
  const bool text_alone = std::holds_alternative<QueryRequest>(request.skill) && random() % 4 == 0;
  if (!text_alone) request.picture = picture(random);
  request.sampling.max_tokens = 4 + static_cast<int>(random() % 40);
  request.sampling.ignore_eos = random() % 2 == 0;
  return request;
}

/// Where requests were when they ended early, as the engine's own log tells.
class Stages {
 public:
  void count(std::string_view line) {
    const boost::json::object record = boost::json::parse(line).as_object();
    if (!record.contains("error")) return;
    const auto spent = [&](const char* key) { return record.at(key).to_number<double>() > 0; };
    const char* stage = "waiting";
    if (record.at("completion_tokens").to_number<int>() > 0) {
      stage = "decode";
    } else if (record.at("prompt_tokens").to_number<int>() > 0 && spent("vision_ms")) {
      stage = "prefill";
    } else if (spent("picture_ms")) {
      stage = "picture";
    }
    ++counts_[stage];
  }
  const std::map<std::string, int>& counts() const { return counts_; }

 private:
  std::map<std::string, int> counts_;  // the delivery thread's until the engine is gone
};

TEST(Cancels, AtRandomMomentsLeaveNoPageAndNoSlotInUse) {
  Stages stages;
  EngineOptions options;
  options.model = FOVEA_TINY_MODEL;
  options.max_context = 512;
  options.max_sequences = 8;
  options.max_queue = 64;
  options.request_log = [&stages](std::string_view line) { stages.count(line); };
  auto engine = Engine::create(options);
  ASSERT_TRUE(engine.ok()) << engine.error().message;

  constexpr int kInside = 24;
  std::mt19937 random(11);
  std::mutex mutex;
  std::condition_variable changed;
  int outstanding = 0, cancelled = 0, answered = 0, others = 0;
  std::string what;
  std::vector<std::uint64_t> ids;
  const int wanted = num_cancels();
  for (bool enough = false; !enough;) {
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return outstanding < kInside; });
      ++outstanding;
      enough = cancelled >= wanted;
    }
    // Some end in the midst of their answer, at a piece of text; the rest whenever a later request
    // comes in.
    Callbacks callbacks;
    if (random() % 3 == 0) {
      callbacks.on_text = [left = static_cast<int>(random() % 8)](std::string_view) mutable {
        return left-- > 0;
      };
    }
    callbacks.on_done = [&](const Result<Response>& answer) {
      const std::lock_guard lock(mutex);
      if (answer.ok()) {
        ++answered;
      } else if (answer.error().code == ErrorCode::kCancelled) {
        ++cancelled;
      } else {
        ++others;
        what = answer.error().message;
      }
      --outstanding;
      changed.notify_one();
    };
    const Result<std::uint64_t> id = (*engine)->submit(draw(random), std::move(callbacks));
    ASSERT_TRUE(id.ok()) << id.error().message;
    ids.push_back(*id);
    // Fewer than come in: the rest must be answered before more are let in, so that all stages of
    // work are under way.
    if (ids.size() > kInside) ids.erase(ids.begin());
    if (random() % 100 < 85) {
      const std::size_t victim = random() % ids.size();
      (*engine)->cancel(ids[victim]);
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(victim));
    }
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return outstanding == 0; });
  lock.unlock();

  EXPECT_EQ(others, 0) << what;
  EXPECT_GE(cancelled, wanted);
  EXPECT_GT(answered, 0);
  (*engine)->drop_caches();
  const EngineStats stats = (*engine)->stats();
  EXPECT_EQ(stats.pages_free, stats.pages_total);
  EXPECT_EQ(stats.num_running, 0);
  EXPECT_EQ(stats.num_waiting, 0);
  EXPECT_EQ(stats.num_cancelled, cancelled);
  // It still answers, with the answer of an engine that nobody disturbed.
  Request after{.skill = CaptionRequest{}, .picture = Picture(Image{2, 1, {255, 0, 0, 0, 0, 255}})};
  after.sampling.temperature = 0;
  const Result<Response> again = (*engine)->run(after);
  ASSERT_TRUE(again.ok()) << again.error().message;
  engine->reset();
  for (const auto& [stage, number] : stages.counts()) {
    RecordProperty("cancelled_in_" + stage, number);
    std::cout << "cancelled in " << stage << ": " << number << "\n";
  }
  std::cout << answered << " answered, " << cancelled << " cancelled\n";
  auto fresh = Engine::create(options);
  ASSERT_TRUE(fresh.ok());
  EXPECT_EQ((*fresh)->run(after)->token_ids, again->token_ids);
}

}  // namespace
}  // namespace fovea
