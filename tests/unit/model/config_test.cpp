#include "model/config.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "io/checkpoint.h"
#include "model/tensor_table.h"
#include "support/checkpoint_builder.h"
#include "support/scratch_folder.h"

namespace fovea {
namespace {

using testing_support::CheckpointBuilder;
using testing_support::tiny_moondream2;

Result<ModelConfig> resolve(const CheckpointBuilder& builder, std::string_view config_json = "") {
  const auto folder = testing_support::scratch_folder() /
                      testing::UnitTest::GetInstance()->current_test_info()->name();
  std::filesystem::create_directories(folder);
  builder.write(folder / "model.safetensors");
  auto checkpoint = Checkpoint::open(folder);
  if (!checkpoint.ok()) return checkpoint.error();
  std::optional<json::value> document;
  if (!config_json.empty()) document = *json::parse(config_json, "config.json");
  return resolve_config(*checkpoint, document ? &*document : nullptr);
}

std::string error_of(const Result<ModelConfig>& result) {
  return result.ok() ? "" : result.error().message;
}

// The published widths decide the family; a name in the older spelling decides the vocabulary of a
// Moondream 2.
CheckpointBuilder in_older_spelling(const CheckpointBuilder& builder) {
  CheckpointBuilder older;
  for (const auto& [name, entry] : builder.entries()) {
    const std::string current = name.substr(std::string("model.").size());
    const auto spellings = legacy_spellings(current);
    older.add_raw(spellings.empty() ? current : spellings.front(), entry.dtype, entry.shape,
                  entry.bytes);
  }
  return older;
}

TEST(ModelConfig, ReadsDimensionsOffTheShapes) {
  const auto config = resolve(tiny_moondream2());
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->family, "moondream2");
  EXPECT_EQ(config->text.dim, 128);
  EXPECT_EQ(config->text.n_heads, 2);
  EXPECT_EQ(config->text.n_kv_heads, 2);
  EXPECT_EQ(config->text.n_layers, 1);
  EXPECT_EQ(config->text.ff_dim, 256);
  EXPECT_EQ(config->text.vocab_size, 51200);
  EXPECT_EQ(config->text.prefix_attn, 101);
  EXPECT_EQ(config->text.rope_theta, 10'000);
  EXPECT_EQ(config->vision.enc_patch_size, 4);
  EXPECT_EQ(config->vision.crop_size, 40);
  EXPECT_EQ(config->vision.enc_n_heads, 1);
  EXPECT_EQ(config->region.inner_dim, 48);
  EXPECT_FALSE(config->region.linear_decoder);
  EXPECT_EQ(config->prompts.answer_opener, (std::vector<TokenId>{TokenId{3}, TokenId{3}}));
  EXPECT_EQ(config->prompts.reasoning_opener, (std::vector<TokenId>{TokenId{3}, TokenId{4}}));
}

TEST(ModelConfig, OlderSpellingMeansGpt2Prompts) {
  const auto config = resolve(in_older_spelling(tiny_moondream2()));
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->family, "moondream2-gpt2");
  EXPECT_EQ(config->prompts.bos, TokenId{50256});
  EXPECT_FALSE(config->prompts.has_region_tokens());
}

TEST(ModelConfig, TauAndExpertsMeanMoondream3) {
  CheckpointBuilder builder = tiny_moondream2();
  builder.add("model.text.blocks.0.attn.tau.wq", {2, 384})
      .add("model.text.blocks.0.attn.tau.wv", {2, 384});
  builder.add("model.text.blocks.0.attn.tau.alpha", {2});
  builder.add_norm("model.text.blocks.1.ln", 128)
      .add_linear("model.text.blocks.1.mlp.router", 16, 128);
  builder.add("model.text.blocks.1.mlp.fc1.weight", {16, 64, 128})
      .add("model.text.blocks.1.mlp.fc2.weight", {16, 128, 32});
  const auto config = resolve(builder);
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->family, "moondream3");
  EXPECT_EQ(config->text.rope_theta, 1'500'000);
  EXPECT_EQ(config->text.max_context, 32'768);
  ASSERT_TRUE(config->text.moe.has_value());
  EXPECT_EQ(config->text.moe->start_layer, 1);
  EXPECT_EQ(config->text.moe->num_experts, 16);
  EXPECT_EQ(config->text.moe->expert_inner_dim, 32);
  EXPECT_EQ(config->text.moe->experts_per_token, 8);
  EXPECT_EQ(config->prompts.answer_opener, std::vector<TokenId>{TokenId{3}});
  EXPECT_TRUE(config->prompts.answer_suppressed.empty());
  EXPECT_TRUE(config->prompts.reasoning_by_default);
}

TEST(ModelConfig, KvHeadsFollowTheQkvMatrix) {
  CheckpointBuilder builder = tiny_moondream2();
  builder.add_linear("model.text.blocks.0.attn.qkv", 256,
                     128);  // 2 query heads, 1 for keys and values
  const auto config = resolve(builder);
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->text.n_kv_heads, 1);
}

TEST(ModelConfig, ConfigJsonOverrides) {
  const auto config =
      resolve(tiny_moondream2(), R"({"text": {"n_heads": 4, "max_context": 512, "rope_theta": 5000},
                                                     "vision": {"max_crops": 6}, "something_else": [1]})");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->text.n_heads, 4);
  EXPECT_EQ(config->text.head_dim(), 32);
  EXPECT_EQ(config->text.n_kv_heads, 4);
  EXPECT_EQ(config->text.max_context, 512);
  EXPECT_EQ(config->text.rope_theta, 5000);
  EXPECT_EQ(config->vision.max_crops, 6);
}

TEST(ModelConfig, ErrorsNameTheField) {
  EXPECT_NE(
      error_of(resolve(tiny_moondream2(), R"({"text": {"n_heads": "two"}})")).find("text.n_heads"),
      std::string::npos);
  EXPECT_NE(error_of(resolve(tiny_moondream2(), R"({"text": {"n_heads": 3}})")).find("head"),
            std::string::npos);
  EXPECT_NE(
      error_of(resolve(tiny_moondream2(), R"({"text": {"max_context": 10}})")).find("max_context"),
      std::string::npos);
  EXPECT_NE(
      error_of(resolve(tiny_moondream2(), R"({"vision": {"crop_size": 44}})")).find("prefix_attn"),
      std::string::npos);
  EXPECT_NE(
      error_of(resolve(tiny_moondream2(), R"({"tokenizer": {"eos_id": 60000}})")).find("60000"),
      std::string::npos);
  EXPECT_NE(error_of(resolve(tiny_moondream2(), R"({"region": {"decoder": "cubic"}})"))
                .find("region.decoder"),
            std::string::npos);
}

TEST(ModelConfig, NamesTheTensorThatIsMissing) {
  const std::string message = error_of(resolve(tiny_moondream2().remove("model.text.wte")));
  EXPECT_NE(message.find("text.wte"), std::string::npos) << message;
  EXPECT_NE(message.find("text_model.transformer.embd.wte.weight"), std::string::npos) << message;
}

}  // namespace
}  // namespace fovea
