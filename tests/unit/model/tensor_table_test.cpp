#include "model/tensor_table.h"

#include <gtest/gtest.h>

#include "support/checkpoint_builder.h"
#include "support/scratch_folder.h"

namespace fovea {
namespace {

using testing_support::CheckpointBuilder;

Checkpoint open(const CheckpointBuilder& builder) {
  const auto path =
      testing_support::scratch_folder() /
      (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + ".safetensors");
  builder.write(path);
  auto checkpoint = Checkpoint::open(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  return std::move(checkpoint).value();
}

TEST(TensorTable, FindsEverySpelling) {
  const std::string name = "text.blocks.7.attn.qkv.weight";
  for (const std::string& spelling :
       {"model." + name, name, std::string("text_model.transformer.h.7.mixer.Wqkv.weight")}) {
    const Checkpoint checkpoint = open(CheckpointBuilder().add(spelling, {2, 2}));
    const auto found = TensorTable(checkpoint).require(name);
    ASSERT_TRUE(found.ok()) << spelling;
    EXPECT_EQ(found->entry->name, spelling);
    EXPECT_EQ(found->legacy_spelling, spelling.starts_with("text_model"));
  }
}

TEST(TensorTable, ATensorUnderTwoSpellingsIsAnError) {
  const Checkpoint checkpoint = open(CheckpointBuilder()
                                         .add("model.text.wte", {2, 2})
                                         .add("text_model.transformer.embd.wte.weight", {2, 2}));
  const auto found = TensorTable(checkpoint).find("text.wte");
  ASSERT_FALSE(found.ok());
  EXPECT_NE(found.error().message.find("twice"), std::string::npos);
  EXPECT_NE(found.error().message.find("text_model.transformer.embd.wte.weight"),
            std::string::npos);
}

TEST(TensorTable, OlderSpellingsOfTheSpecification) {
  const auto older = [](std::string_view name) { return legacy_spellings(name).front(); };
  EXPECT_EQ(older("vision.patch_emb.bias"),
            "vision_encoder.encoder.model.visual.patch_embed.linear.bias");
  EXPECT_EQ(older("vision.pos_emb"), "vision_encoder.encoder.model.visual.pos_embed");
  EXPECT_EQ(older("vision.blocks.3.ln2.weight"),
            "vision_encoder.encoder.model.visual.blocks.3.norm2.weight");
  EXPECT_EQ(older("vision.blocks.3.mlp.fc1.bias"),
            "vision_encoder.encoder.model.visual.blocks.3.mlp.fc1.bias");
  EXPECT_EQ(older("vision.proj_mlp.fc2.weight"), "vision_encoder.projection.mlp.fc2.weight");
  EXPECT_EQ(older("text.blocks.23.attn.proj.bias"),
            "text_model.transformer.h.23.mixer.out_proj.bias");
  EXPECT_EQ(older("text.blocks.5.mlp.router.weight"), "text_model.transformer.h.5.gate.weight");
  EXPECT_EQ(legacy_spellings("text.blocks.5.mlp.fc1.weight").back(),
            "text_model.transformer.h.5.mlp.experts.weight");
  EXPECT_EQ(legacy_spellings("text.blocks.5.mlp.fc2.weight").back(),
            "text_model.transformer.h.5.mlp.output_experts.weight");
  EXPECT_EQ(older("text.blocks.5.attn.tau.wqwv"), "text_model.transformer.h.5.tau_wqwv");
  EXPECT_EQ(older("text.blocks.5.moe_quant.up_scale"),
            "text_model.transformer.h.5.moe_quant.up_scale");
  EXPECT_EQ(older("text.post_ln.weight"), "text_model.lm_head.ln.weight");
  EXPECT_EQ(older("text.lm_head.bias"), "text_model.lm_head.linear.bias");
  EXPECT_EQ(older("region.coord_decoder.fc1.weight"), "region_model.coordinate_decoder.fc1.weight");
  EXPECT_EQ(older("region.coord_decoder.weight"), "region_model.coordinate_head.weight");
  EXPECT_EQ(older("region.size_decoder.bias"), "region_model.size_head.bias");
  EXPECT_EQ(older("region.coord_features"), "region_model.coordinate_features.weight");
}

}  // namespace
}  // namespace fovea
