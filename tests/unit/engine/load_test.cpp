// The engine under load, on the model in the box: answers must not depend on what runs beside them.

#include <array>
#include <gtest/gtest.h>
#include <random>

#include "fovea/engine.h"
#include "fovea/picture.h"

#include "support/instrumented.h"
#include "support/must.h"

namespace fovea {
namespace {

constexpr int kNumRequests = testing_support::kInstrumented ? 100 : 1000;

std::unique_ptr<Engine> make_engine(int max_sequences, std::size_t kv_cache_bytes = 0) {
  EngineOptions options;
  options.model = FOVEA_TINY_MODEL;
  options.max_sequences = max_sequences;
  options.max_queue = 2 * kNumRequests;
  options.kv_cache_bytes = kv_cache_bytes;
  return testing_support::must(Engine::create(options));
}

// A disc on a ground; both colours follow from the number.
Picture disc(int number) {
  Image image{160, 120, {}};
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      const bool inside = (x - 80) * (x - 80) + (y - 60) * (y - 60) < 40 * 40;
      for (int c = 0; c < 3; ++c) {
        image.rgb.push_back(static_cast<std::uint8_t>((number + 1) * (c + 2) * (inside ? 37 : 91)));
      }
    }
  }
  return image;
}

SkillRequest skill_for(std::size_t kind, std::size_t variant) {
  static constexpr std::array kQuestions{"What is this?", "How many things are there?",
                                         "What colour is the circle?", "Is there a dog?"};
  if (kind == 0) return CaptionRequest{static_cast<CaptionLength>(variant % 3)};
  if (kind == 1) return QueryRequest{kQuestions[variant % kQuestions.size()], false, {}, {}};
  if (kind == 2) return DetectRequest{"circle", 5};
  return PointRequest{"circle", 5, {}};
}

std::vector<Request> mixed(int count) {
  std::vector<Picture> pictures;
  for (int i = 0; i < 12; ++i) pictures.push_back(disc(i));
  std::mt19937 random(5);
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    Request request{.skill = skill_for(random() % 4, random() % 12)};
    request.picture = pictures[random() % pictures.size()];
    request.sampling.max_tokens = 4 + static_cast<int>(random() % 16);
    if (random() % 2 == 0) request.sampling.temperature = 1.0f;
    request.sampling.seed = random() % 16;
    requests.push_back(std::move(request));
  }
  return requests;
}

struct Answer {
  std::vector<std::int32_t> ids;
  std::vector<double> boxes;
  friend bool operator==(const Answer&, const Answer&) = default;
};

Answer answer_of(const Result<Response>& response) {
  Answer answer;
  if (!response.ok()) {
    ADD_FAILURE() << response.error().message;
    return answer;
  }
  answer.ids = response->token_ids;
  for (const Box& box : response->boxes) {
    answer.boxes.insert(answer.boxes.end(),
                        {box.x_min, box.y_min, box.x_max, box.y_max, box.confidence});
  }
  for (const Point& point : response->points) {
    answer.boxes.insert(answer.boxes.end(), {point.x, point.y, point.confidence});
  }
  return answer;
}

// The bytes of so many KV pages, from those of an engine whose pages are known.
std::size_t bytes_of_pages(const Engine& engine, int pages) {
  return engine.info().kv_cache_bytes / static_cast<std::size_t>(engine.stats().pages_total) *
         static_cast<std::size_t>(pages);
}

TEST(Load, AnswersAreTheSameToTheBitAtAnyNumberInFlight) {
  const std::vector<Request> requests = mixed(kNumRequests);
  std::vector<Answer> alone;
  {
    const auto engine = make_engine(1);
    for (const Request& request : requests) alone.push_back(answer_of(engine->run(request)));
  }
  for (const int in_flight : {4, 16, 64}) {
    const auto engine = make_engine(in_flight);
    const std::vector<Result<Response>> together = engine->run_all(requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      ASSERT_EQ(answer_of(together[i]), alone[i]) << "request " << i << " of " << in_flight;
    }
    engine->drop_caches();
    EXPECT_EQ(engine->stats().pages_free, engine->stats().pages_total);
  }
  // A pool for little more than two of them: what is evicted and pre-empted comes out the same.
  const auto engine = make_engine(16, bytes_of_pages(*make_engine(1), 60));
  const std::vector<Result<Response>> together = engine->run_all(requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    ASSERT_EQ(answer_of(together[i]), alone[i]) << "request " << i << " of a small pool";
  }
}

}  // namespace
}  // namespace fovea
