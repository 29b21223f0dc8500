// A pipeline of two steps on real models: the CPU computes while a step is launched, but its tokens
// are read one step late, and the step after takes them from where a device would have them.

#include <array>
#include <future>
#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/json.h"
#include "engine/engine_loop.h"
#include "engine/kv_cache.h"
#include "engine/model_runner.h"
#include "io/checkpoint.h"
#include "io/tokenizer.h"
#include "model/model.h"
#include "skills/registry.h"
#include "support/instrumented.h"
#include "support/must.h"

namespace fovea {
namespace {

using testing_support::must;

// Counts what passes by on the way to the model.
class CountingRunner final : public StepRunner {
 public:
  explicit CountingRunner(StepRunner& inner) : inner_(inner) {}
  int depth() const override { return inner_.depth(); }
  Status launch(const StepPlan& plan) override {
    for (const PlannedRows& rows : plan.rows) {
      num_fed_back[static_cast<std::size_t>(rows.fed_kind)] += rows.feeds_back ? 1 : 0;
    }
    most_in_flight = std::max(most_in_flight, ++in_flight_);
    return inner_.launch(plan);
  }
  Result<StepOutput> collect() override {
    --in_flight_;
    return inner_.collect();
  }
  Result<std::shared_ptr<const EncodedImage>> upload(const ImageIdentity& identity,
                                                     const HostEmbeddings& bytes) override {
    return inner_.upload(identity, bytes);
  }
  Result<HostEmbeddings> download(const EncodedImage& image) override {
    return inner_.download(image);
  }

  std::array<int, 3> num_fed_back{};  // by kind
  int most_in_flight = 0;

 private:
  StepRunner& inner_;
  int in_flight_ = 0;
};

// A model with a loop around it, as the engine has it.
struct ModelRig {
  ModelRig(const std::filesystem::path& folder, int depth, int num_pages,
           const Compatibility& compatibility) {
    device = must(create_device("cpu", {}));
    const Checkpoint checkpoint = must(Checkpoint::open(folder));
    const json::value file = must(json::parse_file(folder / "config.json", 1 << 20));
    ModelConfig config = must(resolve_config(checkpoint, &file));
    tokenizer.emplace(must(Tokenizer::load(folder)));
    ModelOptions options;
    options.storage = must(natural_storage(checkpoint));
    options.page_size = 16;
    options.max_context = 2048;
    model = must(Model::load(checkpoint, std::move(config), *device, options));
    const ModelConfig& found = model->config();
    kv.emplace(must(PagedKvCache::create(*device, found.text, DType::kF32, num_pages, 16)));
    runner = must(ModelRunner::create(*device, *model, *kv,
                                      {.sample_coordinates = compatibility.sample_coordinates,
                                       .max_sequences = 8,
                                       .depth = depth}));
    counting.emplace(*runner);
    LoopOptions loop_options;
    loop_options.scheduler = {
        .max_sequences = 8, .max_rows = runner->max_rows(), .max_crops = runner->max_crops()};
    loop_options.image_cache_bytes = 1 << 24;
    const VisionConfig& vision = found.vision;
    loop.emplace(*counting, kv->pages(),
                 ModelFacts{.bos = found.prompts.bos,
                            .eos = found.prompts.eos,
                            .vocab_size = found.text.vocab_size,
                            .image_tokens = vision.image_tokens(),
                            .max_context = 2048,
                            .page_size = 16,
                            .crops = {vision.crop_size, vision.enc_patch_size,
                                      vision.overlap_margin, vision.max_crops}},
                 skills::make_factory({found.prompts, *tokenizer, compatibility}), loop_options);
  }

  std::vector<Result<Response>> run_all(const std::vector<Request>& requests) {
    std::vector<std::future<Result<Response>>> futures;
    for (const Request& request : requests) {
      auto answer = std::make_shared<std::promise<Result<Response>>>();
      futures.push_back(answer->get_future());
      const auto id = loop->submit(request, {.on_done = [answer](Result<Response> response) {
                                     answer->set_value(std::move(response));
                                   }});
      if (!id.ok()) answer->set_value(id.error());
    }
    std::vector<Result<Response>> answers;
    for (auto& future : futures) answers.push_back(future.get());
    return answers;
  }

  std::unique_ptr<Device> device;
  std::optional<Tokenizer> tokenizer;
  std::unique_ptr<const Model> model;
  std::optional<PagedKvCache> kv;
  std::unique_ptr<ModelRunner> runner;
  std::optional<CountingRunner> counting;
  std::optional<EngineLoop> loop;
};

// Every skill, greedy and drawn, with and without pictures; reasoning where the model has it.
std::vector<Request> all_kinds(int count, bool reasoning) {
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    Request request;
    switch (i % 5) {
      case 0:
        request.skill = QueryRequest{"how many " + std::to_string(i % 7), false, {}};
        break;
      case 1:
        request.skill = CaptionRequest{CaptionLength::kShort};
        break;
      case 2:
        request.skill = DetectRequest{"dot", 4};
        break;
      case 3:
        request.skill = PointRequest{"dot", 4, {}};
        break;
      default:
        request.skill = QueryRequest{"where is it", reasoning, {}};
    }
    if (i % 5 != 0 || i % 2 == 0) {
      Image image{2, 1, {255, 0, 0, 0, 0, 255}};
      image.rgb[0] = static_cast<std::uint8_t>(i % 4 * 60);
      request.picture = std::move(image);
    }
    request.sampling.max_tokens = 6 + i % 15;
    request.sampling.temperature = i % 3 == 0 ? 3.0f : 0.0f;
    request.sampling.seed = static_cast<std::uint64_t>(i);
    if (i % 4 == 1) request.sampling.top_logprobs = 2;
    if (i % 11 == 0) request.sampling.repetition_penalty = 1.2f;
    if (i % 6 == 1) request.sampling.stop = {"a"};
    requests.push_back(std::move(request));
  }
  return requests;
}

void expect_equal(const Response& found, const Response& expected) {
  EXPECT_EQ(found.token_ids, expected.token_ids);
  EXPECT_EQ(found.text, expected.text);
  EXPECT_EQ(found.finish_reason, expected.finish_reason);
  EXPECT_EQ(found.usage.completion_tokens, expected.usage.completion_tokens);
  ASSERT_EQ(found.boxes.size(), expected.boxes.size());
  for (std::size_t i = 0; i < found.boxes.size(); ++i) {
    EXPECT_EQ(found.boxes[i].x_min, expected.boxes[i].x_min);
    EXPECT_EQ(found.boxes[i].y_max, expected.boxes[i].y_max);
    EXPECT_EQ(found.boxes[i].confidence, expected.boxes[i].confidence);
  }
  ASSERT_EQ(found.points.size(), expected.points.size());
  for (std::size_t i = 0; i < found.points.size(); ++i) {
    EXPECT_EQ(found.points[i].x, expected.points[i].x);
    EXPECT_EQ(found.points[i].y, expected.points[i].y);
  }
  EXPECT_EQ(found.reasoning.has_value(), expected.reasoning.has_value());
  if (found.reasoning && expected.reasoning) {
    EXPECT_EQ(found.reasoning->text, expected.reasoning->text);
    EXPECT_EQ(found.reasoning->grounding.size(), expected.reasoning->grounding.size());
  }
  ASSERT_EQ(found.logprobs.size(), expected.logprobs.size());
  for (std::size_t i = 0; i < found.logprobs.size(); ++i) {
    EXPECT_EQ(found.logprobs[i].logprob, expected.logprobs[i].logprob);
    EXPECT_EQ(found.logprobs[i].top, expected.logprobs[i].top);
  }
}

struct Case {
  const char* folder;
  bool reasoning;
};

class Pipeline : public testing::TestWithParam<Case> {};

TEST_P(Pipeline, OfTwoStepsGivesTheAnswersOfOneToTheBit) {
  constexpr int kCount = testing_support::kInstrumented ? 5 : 60;
  const std::filesystem::path folder = std::filesystem::path(FOVEA_TEST_DATA) / GetParam().folder;
  const std::vector<Request> requests = all_kinds(kCount, GetParam().reasoning);
  for (const bool drawn_bins : {false, true}) {
    Compatibility compatibility;
    compatibility.sample_coordinates = drawn_bins;
    ModelRig one(folder, 1, 700, compatibility);
    const auto expected = one.run_all(requests);
    for (const int num_pages : {700, 110}) {  // with room, and with pre-emptions
      ModelRig two(folder, 2, num_pages, compatibility);
      const auto found = two.run_all(requests);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        SCOPED_TRACE(i);
        ASSERT_TRUE(expected[i].ok()) << expected[i].error().message;
        ASSERT_TRUE(found[i].ok()) << found[i].error().message;
        expect_equal(*found[i], *expected[i]);
      }
      EXPECT_EQ(two.counting->most_in_flight, 2);
      EXPECT_GT(two.counting->num_fed_back[0], kCount);  // words
      EXPECT_GT(two.counting->num_fed_back[1], 0);       // coordinates
      two.loop->drop_caches();
      EXPECT_EQ(two.loop->stats().pages_free, two.loop->stats().pages_total);
    }
    EXPECT_EQ(one.counting->most_in_flight, 1);
    EXPECT_EQ(one.counting->num_fed_back[0], 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Pipeline,
                         testing::Values(Case{"md2-mha", false}, Case{"md2-gqa", true},
                                         Case{"md3", true}),
                         [](const auto& model) {
                           std::string name = model.param.folder;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace fovea
