#include "engine/model_runner.h"

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/guard.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "engine/kv_cache.h"
#include "engine/prefix_cache.h"
#include "image/crops.h"
#include "io/checkpoint.h"
#include "model/model.h"
#include "support/failing_new.h"
#include "support/must.h"
#include "support/pages.h"

namespace fovea {
namespace {

using testing_support::kBos;
using testing_support::must;

TEST(ModelRunner, AStepThatFailedLeavesNothingToTheNext) {
  const std::filesystem::path folder = std::filesystem::path(FOVEA_TEST_DATA) / "md2-mha";
  const Checkpoint checkpoint = must(Checkpoint::open(folder));
  const json::value document = must(json::parse_file(folder / "config.json", 1 << 20));
  ModelConfig config = must(resolve_config(checkpoint, &document));
  const auto device = must(create_device("cpu", {.num_threads = 1}));
  ModelOptions options;
  options.storage = DType::kF32;
  options.max_context = config.text.max_context;
  const auto model = must(Model::load(checkpoint, std::move(config), *device, options));
  auto kv = must(PagedKvCache::create(*device, model->config().text, DType::kF32, 16,
                                      testing_support::kPageSize));
  const auto runner = must(ModelRunner::create(*device, *model, kv, {}));

  // A picture and a prompt of somebody else in one step.
  ThreadPool pool(1);
  const VisionConfig& vision = model->config().vision;
  const CropGeometry geometry{.crop_size = vision.crop_size, .patch_size = vision.enc_patch_size};
  const auto picture = std::make_shared<PictureJob>();
  picture->crops = must(make_crops(Image{2, 1, {255, 0, 0, 0, 0, 255}}, geometry, pool));
  PrefixCache prefixes(kv.pages(), kv.page_size());
  Prompt prompt;
  prompt.bos = kBos;
  prompt.tokens = {Token::text(TokenId{5}), Token::text(TokenId{6})};
  Generation generation;
  Sequence& sequence =
      generation.sequence.emplace(kv.pages(), prefixes, kv.page_size(), std::move(prompt));
  std::optional<Sequence::PageCopy> copy;
  ASSERT_TRUE(sequence.reserve(sequence.length(), copy));
  StepPlan plan;
  plan.crops.push_back({picture, 0, 1, true});
  plan.num_crops = 1;
  plan.rows.push_back(
      {.generation = &generation, .begin = 0, .end = sequence.length(), .samples = true});
  plan.num_rows = sequence.length();

  int num_failed = 0;
  for (int first = 1;; ++first) {
    Status launched;
    {
      const testing_support::FailingNew failing(first);
      launched = guarded([&] { return runner->launch(plan); });
    }
    if (launched.ok() && !picture->failure) break;
    ++num_failed;
    if (launched.ok()) {  // the picture alone had no memory
      picture->failure.reset();
      ASSERT_TRUE(runner->collect().ok());
      continue;
    }
    ASSERT_TRUE(runner->launch(StepPlan{}).ok());
    ASSERT_TRUE(runner->collect().ok());
    ASSERT_EQ(picture->encoded, nullptr) << "allocation " << first;
    ASSERT_FALSE(picture->crops.pixels.empty()) << "allocation " << first;
  }
  EXPECT_GT(num_failed, 3);
  ASSERT_TRUE(runner->collect().ok());
  EXPECT_NE(picture->encoded, nullptr);
}

}  // namespace
}  // namespace fovea
