#include "model/adapter.h"

#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/registry.h"
#include "model/adapter_slots.h"
#include "support/checkpoint_builder.h"
#include "support/scratch_folder.h"
#include "tensor/half.h"

namespace fovea {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing_support::CheckpointBuilder;

// Two dense layers of width 8 (2 heads of 4), inner 12.
ModelConfig dense_config() {
  ModelConfig config;
  config.text = {.dim = 8, .ff_dim = 12, .n_layers = 2, .n_heads = 2, .n_kv_heads = 2, .moe = {}};
  return config;
}

// One dense layer, then two of 4 experts of inner width 5, two for each token.
ModelConfig routed_config() {
  ModelConfig config = dense_config();
  config.text.n_layers = 3;
  config.text.moe = MoeConfig{4, 1, 2, 5};
  return config;
}

CheckpointBuilder variant(int rank = 3, int layers = 2) {
  CheckpointBuilder builder;
  for (int layer = 0; layer < layers; ++layer) {
    const std::string block = "text.blocks." + std::to_string(layer) + ".";
    builder.add(block + "attn.qkv.A", {rank, 8}).add(block + "attn.qkv.B", {24, rank});
    builder.add(block + "attn.proj.A", {rank, 8}).add(block + "attn.proj.B", {8, rank});
    builder.add(block + "mlp.fc1.A", {rank, 8}).add(block + "mlp.fc1.B", {12, rank});
    builder.add(block + "mlp.fc2.A", {rank, 12}).add(block + "mlp.fc2.B", {8, rank});
  }
  return builder;
}

CheckpointBuilder finetune(const std::string& prefix = "text_lora.", int rank = 6) {
  CheckpointBuilder builder;
  const std::string dense = prefix + "dense.0.";
  builder.add(dense + "up_a", {rank, 8}).add(dense + "up_b", {12, rank});
  builder.add(dense + "down_a", {rank, 12}).add(dense + "down_b", {8, rank});
  for (const char* number : {"0", "1"}) {
    const std::string moe = prefix + "moe." + number + ".";
    builder.add(moe + "up_a", {4, rank / 2, 8}).add(moe + "up_b", {4, 10, rank / 2});
    builder.add(moe + "down_a", {4, rank / 2, 5}).add(moe + "down_b", {4, 8, rank / 2});
  }
  return builder;
}

std::filesystem::path test_path(const std::string& extension = ".safetensors") {
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  return testing_support::scratch_folder() /
         (std::string(test->test_suite_name()) + "_" + test->name() + extension);
}

Result<Adapter> load(const CheckpointBuilder& builder, const ModelConfig& config,
                     DType storage = DType::kF32) {
  builder.write(test_path());
  return load_adapter(test_path(), config, storage);
}

std::string failure(const CheckpointBuilder& builder, const ModelConfig& config) {
  const auto adapter = load(builder, config);
  if (adapter.ok()) return "(no error)";
  EXPECT_THAT(adapter.error().message, HasSubstr(test_path().string()));
  return adapter.error().message;
}

std::vector<float> floats(const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

std::vector<float> entry_floats(const CheckpointBuilder& builder, const std::string& name) {
  const std::string& bytes = builder.entries().at(name).bytes;
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// [experts, outputs, rank] -> [experts, rank, outputs].
std::vector<float> turned(const std::vector<float>& b, std::size_t outputs, std::size_t rank) {
  std::vector<float> result(b.size());
  for (std::size_t i = 0; i < b.size(); ++i) {
    const std::size_t matrix = i / (outputs * rank), o = i / rank % outputs, j = i % rank;
    result[(matrix * rank + j) * outputs + o] = b[i];
  }
  return result;
}

TEST(AdapterFile, VariantAdaptsEveryLinearOfEveryLayer) {
  const CheckpointBuilder builder = variant();
  const auto adapter = load(builder, dense_config());
  ASSERT_TRUE(adapter.ok()) << adapter.error().message;
  EXPECT_EQ(adapter->rank, 3);
  ASSERT_EQ(adapter->layers.size(), 2u);
  struct Part {
    const char* name;
    LoraTarget target;
    std::size_t outputs;
  };
  std::size_t bytes = 0;
  for (const Part part :
       {Part{"attn.qkv", LoraTarget::kQkv, 24}, Part{"attn.proj", LoraTarget::kProj, 8},
        Part{"mlp.fc1", LoraTarget::kFc1, 12}, Part{"mlp.fc2", LoraTarget::kFc2, 8}}) {
    const std::string stem = std::string("text.blocks.1.") + part.name;
    const LoraPair& pair = adapter->pair(1, part.target);
    EXPECT_EQ(pair.rank, 3) << part.name;
    EXPECT_EQ(floats(pair.a), entry_floats(builder, stem + ".A")) << part.name;
    EXPECT_EQ(floats(pair.b), turned(entry_floats(builder, stem + ".B"), part.outputs, 3))
        << part.name;
    bytes += 2 * (pair.a.size() + pair.b.size());
  }
  EXPECT_EQ(adapter->size_bytes(), bytes);
}

TEST(AdapterFile, VariantUnderOlderNamesIsTheSame) {
  CheckpointBuilder builder = variant();
  for (const char* layer : {"0", "1"}) {
    const std::string from = std::string("text.blocks.") + layer;
    const std::string to = std::string("text_model.transformer.h.") + layer;
    for (const char* half : {"A", "B"}) {
      const std::string end = std::string(".parametrizations.weight.0.") + half;
      builder.rename(from + ".attn.qkv." + half, to + ".mixer.Wqkv" + end);
      builder.rename(from + ".attn.proj." + half, to + ".mixer.out_proj" + end);
      builder.rename(from + ".mlp.fc1." + half, to + ".mlp.fc1" + end);
    }
  }
  const auto adapter = load(builder, dense_config());
  ASSERT_TRUE(adapter.ok()) << adapter.error().message;
  EXPECT_EQ(floats(adapter->pair(0, LoraTarget::kProj).a),
            entry_floats(variant(), "text.blocks.0.attn.proj.A"));
}

TEST(AdapterFile, VariantPairsMayHaveRanksOfTheirOwn) {
  CheckpointBuilder builder = variant();
  builder.add("text.blocks.1.mlp.fc1.A", {7, 8}).add("text.blocks.1.mlp.fc1.B", {12, 7});
  const auto adapter = load(builder, dense_config());
  ASSERT_TRUE(adapter.ok()) << adapter.error().message;
  EXPECT_EQ(adapter->pair(1, LoraTarget::kFc1).rank, 7);
  EXPECT_EQ(adapter->pair(1, LoraTarget::kFc2).rank, 3);
  EXPECT_EQ(adapter->rank, 7);
}

TEST(AdapterFile, VariantOfAMixtureLeavesTheExpertsAlone) {
  const auto adapter = load(variant(3, 3), routed_config());
  ASSERT_TRUE(adapter.ok()) << adapter.error().message;
  EXPECT_EQ(adapter->pair(0, LoraTarget::kFc1).rank, 3);
  EXPECT_EQ(adapter->pair(2, LoraTarget::kQkv).rank, 3);
  EXPECT_EQ(adapter->pair(2, LoraTarget::kFc1).rank, 0);
  EXPECT_EQ(adapter->pair(2, LoraTarget::kExpertsUp).rank, 0);
}

TEST(AdapterFile, FinetuneSplitsItsRankAmongTheExpertsOfAToken) {
  for (const char* prefix : {"text_lora.", "_text.", ""}) {
    const CheckpointBuilder builder = finetune(prefix);
    const auto adapter = load(builder, routed_config());
    ASSERT_TRUE(adapter.ok()) << adapter.error().message;
    EXPECT_EQ(adapter->rank, 6);
    EXPECT_EQ(adapter->pair(0, LoraTarget::kFc1).rank, 6);
    EXPECT_EQ(adapter->pair(0, LoraTarget::kQkv).rank, 0);
    const LoraPair& up = adapter->pair(2, LoraTarget::kExpertsUp);
    EXPECT_EQ(up.rank, 3);
    const std::string stem = std::string(prefix) + "moe.1.";
    EXPECT_EQ(floats(up.a), entry_floats(builder, stem + "up_a"));
    EXPECT_EQ(floats(up.b), turned(entry_floats(builder, stem + "up_b"), 10, 3));
    EXPECT_EQ(floats(adapter->pair(2, LoraTarget::kExpertsDown).b),
              turned(entry_floats(builder, stem + "down_b"), 8, 3));
  }
}

TEST(AdapterFile, FinetuneLayersMayBeAbsentAndItsVisionPartIsLeftOut) {
  CheckpointBuilder builder = finetune();
  for (const char* tail : {"up_a", "up_b", "down_a", "down_b"}) {
    builder.remove(std::string("text_lora.dense.0.") + tail);
    builder.remove(std::string("text_lora.moe.0.") + tail);
  }
  builder.add("vision_lora.proj_fc2.down", {6, 64});
  const auto adapter = load(builder, routed_config());
  ASSERT_TRUE(adapter.ok()) << adapter.error().message;
  EXPECT_EQ(adapter->rank, 6) << "3 for each of an expert's two";
  EXPECT_EQ(adapter->pair(1, LoraTarget::kExpertsUp).rank, 0);
  EXPECT_EQ(adapter->pair(2, LoraTarget::kExpertsUp).rank, 3);
}

TEST(AdapterFile, EqualTwinsCountOnceAndOthersAreRefused) {
  CheckpointBuilder builder = finetune();
  const auto& twin = builder.entries().at("text_lora.dense.0.up_a");
  builder.add_raw("_text.dense.0.up_a", twin.dtype, twin.shape, twin.bytes);
  const auto adapter = load(builder, routed_config());
  EXPECT_TRUE(adapter.ok()) << adapter.error().message;
  builder.add_values("_text.dense.0.up_a", {6, 8}, std::vector<float>(48, 1.0f));
  EXPECT_THAT(failure(builder, routed_config()),
              EndsWith("tensors _text.dense.0.up_a and text_lora.dense.0.up_a stand for the same "
                       "one and differ"));
}

TEST(AdapterFile, EveryFloatTypeIsReadAndRoundedToTheModelsStorage) {
  const std::vector<float> values{1.0f, -2.0f, 0.5f, 448.0f, 0.0f, -0.015625f, 3.0f, 4.0f};
  std::string bf16, f16;
  for (const float value : values) {
    const std::uint16_t bits = f32_to_bf16(value);
    bf16.append(reinterpret_cast<const char*>(&bits), 2);
  }
  for (const int code : {0x3c00, 0xc000, 0x3800, 0x5f00, 0x0000, 0xa400, 0x4200, 0x4400}) {
    const auto bits = static_cast<std::uint16_t>(code);
    f16.append(reinterpret_cast<const char*>(&bits), 2);
  }
  CheckpointBuilder builder = variant(1);
  builder.add_raw("text.blocks.0.attn.qkv.A", "BF16", {1, 8}, bf16);
  builder.add_raw("text.blocks.0.attn.proj.A", "F16", {1, 8}, f16);
  builder.add_values("text.blocks.0.mlp.fc1.A", {1, 8}, values);
  for (const DType storage : {DType::kF32, DType::kBf16}) {
    const auto adapter = load(builder, dense_config(), storage);
    ASSERT_TRUE(adapter.ok()) << adapter.error().message;
    for (const LoraTarget target : {LoraTarget::kQkv, LoraTarget::kProj, LoraTarget::kFc1}) {
      const std::vector<std::byte>& a = adapter->pair(0, target).a;
      ASSERT_EQ(a.size(), 8 * dtype_size(storage));
      if (storage == DType::kF32) {
        EXPECT_EQ(floats(a), values);
      } else {
        EXPECT_EQ(std::memcmp(a.data(), bf16.data(), a.size()), 0);
      }
    }
  }
}

TEST(AdapterFile, RanksHaveLimits) {
  EXPECT_TRUE(load(variant(1), dense_config()).ok());
  EXPECT_TRUE(load(variant(512), dense_config()).ok());
  EXPECT_THAT(failure(variant(513), dense_config()),
              EndsWith("tensor text.blocks.0.attn.qkv.A: shape [513, 8] found, 2 dimensions and a "
                       "rank of 1 to 512 wanted"));
  EXPECT_THAT(failure(variant(0), dense_config()), HasSubstr("shape [0, 8] found"));
  EXPECT_TRUE(load(finetune("", 512), routed_config()).ok());
  EXPECT_THAT(failure(finetune("", 514), routed_config()), HasSubstr("[514, 8] found"));
  EXPECT_THAT(failure(finetune("", 5), routed_config()),
              EndsWith("tensor dense.0.up_a: rank 5 found, a multiple of the 2 experts per token "
                       "wanted"));
}

TEST(AdapterFile, MisfitsNameTensorFoundAndWanted) {
  const auto with = [](CheckpointBuilder builder, const std::string& name,
                       std::vector<std::int64_t> shape) {
    builder.add(name, std::move(shape));
    return builder;
  };
  EXPECT_THAT(failure(with(variant(), "text.blocks.1.mlp.fc2.A", {3, 8}), dense_config()),
              EndsWith("tensor text.blocks.1.mlp.fc2.A: shape [3, 8] found, [3, 12] wanted"));
  EXPECT_THAT(failure(with(variant(), "text.blocks.1.attn.qkv.B", {24, 4}), dense_config()),
              EndsWith("tensor text.blocks.1.attn.qkv.B: shape [24, 4] found, [24, 3] wanted"));
  EXPECT_THAT(failure(with(finetune(), "text_lora.moe.1.up_b", {4, 3, 10}), routed_config()),
              EndsWith("text_lora.moe.1.up_b: shape [4, 3, 10] found, [4, 10, 3] wanted"));
  EXPECT_THAT(failure(with(finetune(), "text_lora.moe.1.up_a", {4, 2, 8}), routed_config()),
              EndsWith("text_lora.moe.1.up_a: shape [4, 2, 8] found, [4, 3, 8] wanted"));
  CheckpointBuilder bytes = variant();
  bytes.add_raw("text.blocks.0.attn.qkv.A", "U8", {3, 8}, std::string(24, '\1'));
  EXPECT_THAT(failure(bytes, dense_config()),
              EndsWith("attn.qkv.A: element type u8 found, f32, bf16 or f16 wanted"));
}

TEST(AdapterFile, WrongNamesAreRefused) {
  const auto named = [](const std::string& name) { return variant().add(name, {3, 8}); };
  for (const char* name :
       {"text.blocks.0.attn.qkv.C", "text.blocks.0.mlp.fc3.A", "text.blocks.x.mlp.fc1.A",
        "text.blocks.0.mlp.fc1", "text.blocks.-1.mlp.fc1.A", "text.blocks.99999999999.mlp.fc1.A",
        "region.coord_encoder.A", "text.blocks.0.mlp.fc1.weight", "lora_alpha"}) {
    EXPECT_THAT(failure(named(name), dense_config()),
                HasSubstr(std::string("tensor ") + name + " belongs to no adapter known here"));
  }
  EXPECT_THAT(failure(named("text.blocks.2.mlp.fc1.A"), dense_config()),
              EndsWith("tensor text.blocks.2.mlp.fc1.A: layer 2 found, 0 to 1 wanted"));
  EXPECT_THAT(failure(named("text_lora.dense.0.up_a"), dense_config()),
              HasSubstr("mixes two layouts of adapters: tensor text.blocks.0.attn.proj.A and"));
  EXPECT_THAT(failure(finetune(), dense_config()),
              HasSubstr("for experts, and the model has none"));
  EXPECT_THAT(failure(finetune().add("text_lora.moe.2.up_a", {4, 3, 8}), routed_config()),
              HasSubstr("text_lora.moe.2.up_a: layer 2 found, 0 to 1 wanted"));
  EXPECT_THAT(failure(finetune().add("text_lora.dense.1.up_a", {6, 8}), routed_config()),
              HasSubstr("for a dense MLP, but layer 1 has experts"));
}

TEST(AdapterFile, IncompleteFilesNameWhatIsMissing) {
  EXPECT_THAT(
      failure(variant().remove("text.blocks.1.attn.proj.B"), dense_config()),
      EndsWith("tensor text.blocks.1.attn.proj.A has no partner text.blocks.1.attn.proj.B"));
  EXPECT_THAT(failure(finetune().remove("text_lora.moe.0.up_a"), routed_config()),
              EndsWith("tensor text_lora.moe.0.up_b has no partner text_lora.moe.0.up_a"));
  EXPECT_THAT(failure(variant(3, 1), dense_config()),
              EndsWith("has no tensor text.blocks.1.attn.qkv.A; every layer is wanted"));
  EXPECT_THAT(failure(CheckpointBuilder().add("vision_lora.proj_fc2.up", {8, 3}), dense_config()),
              EndsWith("holds no tensor of an adapter"));
}

TEST(AdapterFile, PicklesAndAbsentFilesAreExplained) {
  const auto pickle = load_adapter(test_path(".pt"), dense_config(), DType::kF32);
  ASSERT_FALSE(pickle.ok());
  EXPECT_EQ(pickle.error().code, ErrorCode::kNotFound);
  std::ofstream(test_path(".pt"), std::ios::binary) << "PK\x03\x04 a zip archive";
  std::ofstream(test_path(), std::ios::binary) << "PK\x03\x04 a zip archive under another name";
  for (const char* extension : {".pt", ".safetensors"}) {
    const auto refused = load_adapter(test_path(extension), dense_config(), DType::kF32);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(refused.error().message, HasSubstr("tools/convert_adapter.py"));
  }
  std::filesystem::remove(test_path(".pt"));
}

TEST(AdapterFile, AFolderHoldsOne) {
  const auto folder = test_path("");
  std::filesystem::create_directories(folder);
  variant().write(folder / "adapter.safetensors");
  EXPECT_TRUE(load_adapter(folder, dense_config(), DType::kBf16).ok());
}

class AdapterSlotsTest : public testing::Test {
 protected:
  AdapterSlots make(const ModelConfig& config, const AdapterSlotLimits& limits) {
    auto slots = AdapterSlots::create(*device_, config.text, DType::kF32, limits);
    EXPECT_TRUE(slots.ok()) << slots.error().message;
    return std::move(slots).value();
  }
  Adapter adapter(const CheckpointBuilder& builder, const ModelConfig& config) {
    auto loaded = load(builder, config);
    EXPECT_TRUE(loaded.ok()) << loaded.error().message;
    return std::move(loaded).value();
  }

  std::unique_ptr<Device> device_ = std::move(create_device("cpu", {.num_threads = 1})).value();
  std::unique_ptr<Stream> stream_ = std::move(device_->make_stream()).value();
};

TEST_F(AdapterSlotsTest, UploadFillsOneSlotAndClearEmptiesIt) {
  const ModelConfig config = routed_config();
  AdapterSlots slots = make(config, {.num_slots = 3, .max_rank = 8});
  const Adapter one = adapter(finetune(), config);
  ASSERT_TRUE(slots.upload(*stream_, 1, one).ok());
  const LoraWeights up = slots.weights(2, LoraTarget::kExpertsUp);
  EXPECT_EQ((std::vector<std::int32_t>{up.ranks.begin(), up.ranks.end()}),
            (std::vector<std::int32_t>{0, 3, 0}));
  ASSERT_EQ(up.a.shape, (Shape{3, 4, 4, 8}));
  ASSERT_EQ(up.b.shape, (Shape{3, 4, 4, 10}));
  const std::vector<float> a = floats(one.pair(2, LoraTarget::kExpertsUp).a);
  for (std::size_t e = 0; e < 4; ++e) {
    EXPECT_EQ(std::memcmp(up.a.as<float>() + ((4 + e) * 4) * 8, &a[e * 3 * 8], 3 * 8 * 4), 0)
        << "expert " << e;
  }
  EXPECT_EQ(slots.weights(0, LoraTarget::kFc1).ranks[1], 6);
  EXPECT_TRUE(slots.weights(2, LoraTarget::kFc1).empty()) << "a layer with experts";

  // An adapter of other parts leaves nothing of the one before.
  ASSERT_TRUE(slots.upload(*stream_, 1, adapter(variant(2, 3), config)).ok());
  EXPECT_EQ(slots.weights(2, LoraTarget::kExpertsUp).ranks[1], 0);
  EXPECT_EQ(slots.weights(2, LoraTarget::kQkv).ranks[1], 2);
  slots.clear(1);
  EXPECT_EQ(slots.weights(2, LoraTarget::kQkv).ranks[1], 0);
}

TEST_F(AdapterSlotsTest, MemoryIsThatOfEverySlotAtTheLargestRank) {
  const AdapterSlots all = make(dense_config(), {.num_slots = 2, .max_rank = 5});
  EXPECT_EQ(all.size_bytes(), 2u * 2 * 5 * ((8 + 24) + (8 + 8) + (8 + 12) + (12 + 8)) * 4);
  const AdapterSlots mlp =
      make(dense_config(), {.num_slots = 2, .max_rank = 5, .attention = false});
  EXPECT_EQ(mlp.size_bytes(), 2u * 2 * 5 * ((8 + 12) + (12 + 8)) * 4);
}

TEST_F(AdapterSlotsTest, WhatDoesNotFitIsRefusedAndChangesNothing) {
  AdapterSlots slots = make(dense_config(), {.num_slots = 1, .max_rank = 3});
  ASSERT_TRUE(slots.upload(*stream_, 0, adapter(variant(3), dense_config())).ok());
  const Status status = slots.upload(*stream_, 0, adapter(variant(4), dense_config()));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message, "an adapter of rank 4; the slots take ranks up to 3");
  EXPECT_EQ(slots.weights(0, LoraTarget::kQkv).ranks[0], 3);
  AdapterSlots mlp = make(dense_config(), {.num_slots = 1, .max_rank = 3, .attention = false});
  const Status attention = mlp.upload(*stream_, 0, adapter(variant(3), dense_config()));
  ASSERT_FALSE(attention.ok());
  EXPECT_THAT(attention.error().message, HasSubstr("attention"));
}

TEST_F(AdapterSlotsTest, LimitsAreChecked) {
  for (const AdapterSlotLimits limits :
       {AdapterSlotLimits{0, 8}, AdapterSlotLimits{1, 0}, AdapterSlotLimits{1, kMaxLoraRank + 1}}) {
    const auto slots = AdapterSlots::create(*device_, dense_config().text, DType::kF32, limits);
    ASSERT_FALSE(slots.ok());
    EXPECT_EQ(slots.error().code, ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace fovea
