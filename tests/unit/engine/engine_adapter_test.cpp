// Adapters through the whole engine, on golden checkpoints with a dense MLP and with experts.

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fovea/engine.h"

#include "io/checkpoint.h"
#include "support/checkpoint_builder.h"
#include "support/must.h"
#include "support/scratch_folder.h"

namespace fovea {
namespace {

const std::filesystem::path kDense = std::filesystem::path(FOVEA_TEST_DATA) / "md2-mha";
const std::filesystem::path kExperts = std::filesystem::path(FOVEA_TEST_DATA) / "md3";

Request question_for(std::string text, std::string adapter = {}) {
  Request request{.skill = QueryRequest{std::move(text), false, {}}};
  request.picture = Image{2, 1, {255, 0, 0, 0, 0, 255}};
  request.sampling.max_tokens = 12;
  request.sampling.temperature = 0;
  request.adapter = std::move(adapter);
  return request;
}

std::unique_ptr<Engine> make_engine(const EngineOptions& options) {
  return testing_support::must(Engine::create(options));
}

// An adapter that changes linears of the golden model by `strength`: of the variant kind, every
// linear of a dense one; as a fine-tune, the experts.
std::filesystem::path write_adapter(const std::string& name, float strength,
                                    const std::filesystem::path& model = kDense) {
  const auto checkpoint = Checkpoint::open(model);
  EXPECT_TRUE(checkpoint.ok());
  testing_support::CheckpointBuilder builder;
  constexpr std::int64_t kRank = 3;
  const bool experts = std::ranges::any_of(checkpoint->tensors(), [](const TensorEntry& tensor) {
    return tensor.name.ends_with("mlp.fc1.weight") && tensor.shape.rank() == 3;
  });
  for (const TensorEntry& tensor : checkpoint->tensors()) {
    const std::size_t begin = tensor.name.find("text.blocks.");
    const std::size_t end = tensor.name.rfind(".weight");
    if (begin == std::string::npos || end == std::string::npos) continue;
    if (tensor.shape.rank() != (experts ? 3 : 2)) continue;
    const std::string linear = tensor.name.substr(begin, end - begin);
    const auto values = [&](std::int64_t count, float scale) {
      std::vector<float> result;
      for (std::int64_t i = 0; i < count; ++i) {
        result.push_back(scale * std::sin(static_cast<float>(i) * 1.7f + strength));
      }
      return result;
    };
    if (experts) {  // layer 1 is the first that has them
      const std::int64_t count = tensor.shape[0], outputs = tensor.shape[1];
      const std::int64_t inputs = tensor.shape[2];
      const std::string pair = fmt::format("text_lora.moe.{}.{}_", std::stoi(linear.substr(12)) - 1,
                                           linear.ends_with("fc1") ? "up" : "down");
      builder.add_values(pair + "a", {count, kRank, inputs}, values(count * kRank * inputs, 0.2f));
      builder.add_values(pair + "b", {count, outputs, kRank},
                         values(count * outputs * kRank, strength));
      continue;
    }
    const std::int64_t outputs = tensor.shape[0], inputs = tensor.shape[1];
    builder.add_values(linear + ".A", {kRank, inputs}, values(kRank * inputs, 0.2f));
    builder.add_values(linear + ".B", {outputs, kRank}, values(outputs * kRank, strength));
  }
  const auto path = testing_support::scratch_folder() / (name + ".safetensors");
  builder.write(path);
  return path;
}

TEST(Engine, AdaptersAndNoneShareAStepAndKeepTheirCachesApart) {
  EngineOptions options;
  options.model = kDense;
  options.precision = Precision::kF32;
  options.adapters = {{"weak", write_adapter("weak", 0.3f)},
                      {"strong", write_adapter("strong", 2)}};
  const auto adapted = Engine::create(options);
  ASSERT_TRUE(adapted.ok()) << adapted.error().message;
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) {
    requests.push_back(
        question_for("how many red circle are there",
                     std::array{"", "weak", "strong"}[static_cast<std::size_t>(i % 3)]));
  }
  std::vector<std::vector<std::int32_t>> alone;
  for (int i = 0; i < 3; ++i) {
    (*adapted)->drop_caches();
    const auto response = (*adapted)->run(requests[static_cast<std::size_t>(i)]);
    ASSERT_TRUE(response.ok()) << response.error().message;
    alone.push_back(response->token_ids);
  }
  EXPECT_NE(alone[0], alone[2]);
  options.adapters.clear();
  EXPECT_EQ(alone[0], make_engine(options)->run(requests[0])->token_ids);
  for (const bool cold : {true, false}) {
    if (cold) (*adapted)->drop_caches();
    const auto together = (*adapted)->run_all(requests);
    for (std::size_t i = 0; i < together.size(); ++i) {
      ASSERT_TRUE(together[i].ok()) << together[i].error().message;
      EXPECT_EQ(together[i]->token_ids, alone[i % 3]) << requests[i].adapter;
    }
  }
  EXPECT_EQ((*adapted)->stats().num_crops, 4);  // three times alone, once for the rest

  options.adapters = {{"broken", kDense / "tokenizer.json"}};
  const auto refused = Engine::create(options);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("tokenizer.json"), std::string::npos);
}

class AdaptersAtRunTime : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(AdaptersAtRunTime, MoreThanThereAreSlotsAnswerAsOnesOfTheirOwn) {
  EngineOptions options;
  options.model = GetParam();
  options.precision = Precision::kF32;
  options.adapters = {{"weak", write_adapter("weak2", 0.3f, options.model)},
                      {"strong", write_adapter("strong2", 1, options.model)}};
  const std::string text = "how many red circle are there";
  std::vector<Request> requests;
  std::vector<std::vector<std::int32_t>> expected;
  {
    const auto engine = make_engine(options);
    for (const char* name : {"", "weak", "strong"}) {
      requests.push_back(question_for(text, name));
      const auto response = engine->run(requests.back());
      ASSERT_TRUE(response.ok()) << response.error().message;
      expected.push_back(response->token_ids);
    }
    EXPECT_NE(expected[0], expected[2]);
  }
  const auto paths = std::exchange(options.adapters, {});
  options.adapter_slots = 1;
  const auto engine = make_engine(options);
  EXPECT_THAT(engine->run(question_for(text, "weak")).error().message, testing::HasSubstr("weak"));
  for (const auto& [name, path] : paths) ASSERT_TRUE(engine->load_adapter(name, path).ok());
  for (int round = 0; round < 3; ++round) {
    const auto together = engine->run_all(requests);
    for (std::size_t i = 0; i < together.size(); ++i) {
      ASSERT_TRUE(together[i].ok()) << together[i].error().message;
      EXPECT_EQ(together[i]->token_ids, expected[i]) << requests[i].adapter;
    }
  }
  EXPECT_EQ(engine->adapters().size(), 2u);
  EXPECT_THAT(engine->metrics_text(), testing::HasSubstr("fovea_lora_requests_info{model_name="));
  EXPECT_THAT(engine->metrics_text(), testing::HasSubstr("max_lora=\"1\""));
  ASSERT_TRUE(engine->unload_adapter("weak").ok());
  EXPECT_FALSE(engine->run(requests[1]).ok());
  EXPECT_TRUE(engine->run(requests[2]).ok());
  engine->drop_caches();
  EXPECT_EQ(engine->stats().pages_free, engine->stats().pages_total);
}

INSTANTIATE_TEST_SUITE_P(Models, AdaptersAtRunTime, testing::Values(kDense, kExperts),
                         [](const auto& model) {
                           return model.param == kDense ? std::string("Dense")
                                                        : std::string("Experts");
                         });

TEST(AdaptersAtRunTime, WhatDoesNotFitIsRefusedByName) {
  EngineOptions options;
  options.model = kDense;
  options.precision = Precision::kF32;
  options.adapter_slots = 1;
  options.max_adapter_rank = 2;
  const auto engine = make_engine(options);
  const auto error_of = [&](const std::filesystem::path& path) {
    const Status status = engine->load_adapter("x", path);
    return status.ok() ? std::string("accepted") : status.error().message;
  };
  EXPECT_THAT(error_of(write_adapter("rank3", 1)),
              testing::AllOf(testing::HasSubstr("rank3"), testing::HasSubstr("up to 2")));
  EXPECT_THAT(error_of(write_adapter("experts", 1, kExperts)), testing::HasSubstr("experts"));
  EXPECT_THAT(error_of("/nowhere.safetensors"), testing::HasSubstr("/nowhere.safetensors"));
  EXPECT_TRUE(engine->adapters().empty());
  EXPECT_TRUE(engine->run(question_for("how many")).ok());
}

}  // namespace
}  // namespace fovea
