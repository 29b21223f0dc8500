#include "model/weight_loader.h"

#include <array>
#include <gtest/gtest.h>
#include <optional>

#include "backend/registry.h"
#include "support/checkpoint_builder.h"
#include "support/scratch_folder.h"
#include "tensor/half.h"

namespace fovea {
namespace {

using testing_support::CheckpointBuilder;

/// A loader over a file that the test makes, and products to look into opaque matrices with.
class WeightLoaderTest : public testing::Test {
 protected:
  WeightLoader& open(const CheckpointBuilder& builder, DType storage = DType::kF32,
                     std::optional<DType> block_storage = {}) {
    const auto path = testing_support::scratch_folder() /
                      (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) +
                       ".safetensors");
    builder.write(path);
    auto opened = Checkpoint::open(path);
    EXPECT_TRUE(opened.ok()) << opened.error().message;
    checkpoint_ = std::make_unique<Checkpoint>(std::move(opened).value());
    table_ = std::make_unique<TensorTable>(*checkpoint_);
    loader_ = std::make_unique<WeightLoader>(*table_, *device_, *stream_, storage,
                                             block_storage.value_or(storage),
                                             [this](double done) { done_ = done; });
    return *loader_;
  }

  // Row-major values of a matrix, column by column: the product with a unit vector.
  std::vector<float> values(const Matrix& matrix) {
    const auto rows = static_cast<std::size_t>(matrix.rows()),
               cols = static_cast<std::size_t>(matrix.cols());
    std::vector<float> identity(cols * cols, 0.0f), product(cols * rows), result(rows * cols);
    for (std::size_t i = 0; i < cols; ++i) identity[i * cols + i] = 1.0f;
    const auto view = [](std::vector<float>& data, std::size_t r, std::size_t c) {
      return TensorView{DType::kF32,
                        {static_cast<std::int64_t>(r), static_cast<std::int64_t>(c)},
                        reinterpret_cast<std::byte*>(data.data())};
    };
    device_->ops().linear(
        *stream_,
        {.x = view(identity, cols, cols), .weight = &matrix, .y = view(product, cols, rows)});
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < cols; ++c) result[r * cols + c] = product[c * rows + r];
    }
    return result;
  }

  std::unique_ptr<Device> device_ = std::move(create_device("cpu", {.num_threads = 1})).value();
  std::unique_ptr<Stream> stream_ = std::move(device_->make_stream()).value();
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<TensorTable> table_;
  std::unique_ptr<WeightLoader> loader_;
  double done_ = 0;
};

TEST_F(WeightLoaderTest, EveryFloatTypeGivesItsValues) {
  const std::vector<float> wanted{1.0f, -2.0f, 0.5f, 448.0f, 0.0f, -0.015625f};
  std::string bf16, f16;
  for (const float value : wanted) {
    const std::uint16_t bits = f32_to_bf16(value);
    bf16.append(reinterpret_cast<const char*>(&bits), 2);
  }
  for (const int code : {0x3c00, 0xc000, 0x3800, 0x5f00, 0x0000, 0xa400}) {
    const auto bits = static_cast<std::uint16_t>(code);
    f16.append(reinterpret_cast<const char*>(&bits), 2);
  }
  CheckpointBuilder builder;
  builder.add_values("f32.weight", {2, 3}, wanted).add("f32.bias", {2});
  builder.add_raw("bf16.weight", "BF16", {2, 3}, bf16).add("bf16.bias", {2});
  builder.add_raw("f16.weight", "F16", {2, 3}, f16).add("f16.bias", {2});
  WeightLoader& loader = open(builder);
  for (const char* name : {"f32", "bf16", "f16"}) {
    const auto layer = loader.linear(name, 2, 3);
    ASSERT_TRUE(layer.ok()) << layer.error().message;
    EXPECT_EQ(values(*layer->weight), wanted) << name;
  }
  EXPECT_DOUBLE_EQ(done_, 1.0);
  EXPECT_EQ(loader.num_parameters(), 3 * (6 + 2));
}

TEST_F(WeightLoaderTest, OnlyBlocksAreKeptIn8Bits) {
  // 448, the largest of a row, counts 1: of the others only 17 is no code.
  const std::vector<float> wanted{448.0f, 17.0f, -0.5f, 1.0f, 448.0f, 96.0f};
  CheckpointBuilder builder;
  builder.add_values("block.weight", {2, 3}, wanted).add("block.bias", {2});
  WeightLoader& loader = open(builder, DType::kF32, DType::kF8E4M3);
  const auto whole = loader.linear("block", 2, 3), in_8_bits = loader.block_linear("block", 2, 3);
  ASSERT_TRUE(whole.ok() && in_8_bits.ok());
  EXPECT_EQ(values(*whole->weight), wanted);
  EXPECT_EQ(values(*in_8_bits->weight),
            (std::vector<float>{448.0f, 16.0f, -0.5f, 1.0f, 448.0f, 96.0f}));
}

TEST_F(WeightLoaderTest, BlocksOfRowsThatFitAreKeptIn4Bits) {
  // Codes count 1 in the first row and -2 in the second: only 0.3 is none.
  std::vector<float> wanted(2 * 16, 1.0f), kept(2 * 16, 1.0f);
  wanted[0] = kept[0] = -8.0f;
  wanted[1] = kept[1] = 7.0f;
  wanted[2] = 0.3f, kept[2] = 0.0f;
  wanted[16] = kept[16] = 14.0f, wanted[17] = kept[17] = -16.0f;
  for (std::size_t i = 18; i < 32; ++i) wanted[i] = kept[i] = 2.0f;
  CheckpointBuilder builder;
  builder.add_values("block.weight", {2, 16}, wanted).add("block.bias", {2});
  builder.add_values("odd.weight", {2, 3}, {448.0f, 17.0f, -0.5f, 1.0f, 448.0f, 96.0f});
  builder.add("odd.bias", {2});
  WeightLoader& loader = open(builder, DType::kF32, DType::kInt4);
  const auto whole = loader.linear("block", 2, 16), in_4_bits = loader.block_linear("block", 2, 16);
  const auto odd = loader.block_linear("odd", 2, 3);
  ASSERT_TRUE(whole.ok() && in_4_bits.ok() && odd.ok());
  EXPECT_EQ(values(*whole->weight), wanted);
  EXPECT_EQ(values(*in_4_bits->weight), kept);
  EXPECT_EQ(values(*odd->weight), (std::vector<float>{448.0f, 16.0f, -0.5f, 1.0f, 448.0f, 96.0f}));
}

TEST_F(WeightLoaderTest, WrongShapeNamesTensorFoundAndWanted) {
  const auto layer =
      open(CheckpointBuilder().add_linear("text.lm_head", 4, 3)).linear("text.lm_head", 4, 5);
  ASSERT_FALSE(layer.ok());
  EXPECT_EQ(layer.error().message, "tensor text.lm_head.weight: shape [4, 3] found, [4, 5] wanted");
}

TEST_F(WeightLoaderTest, OlderFourierMatricesAreTurned) {
  CheckpointBuilder builder;
  builder.add_values("region_model.size_features.weight", {3, 2}, {1, 2, 3, 4, 5, 6});
  const auto features = open(builder).tensor("region.size_features", {2, 3});
  ASSERT_TRUE(features.ok()) << features.error().message;
  const float* values = features->view().as<float>();
  EXPECT_EQ((std::vector<float>{values, values + 6}), (std::vector<float>{1, 3, 5, 2, 4, 6}));
}

TEST_F(WeightLoaderTest, Int4GroupsOf128) {
  // 2 x 256 elements: 4 groups in 2 packed rows. Group 0 is row 0's high nibbles, group 2 its low
  // ones.
  std::string packed(256, '\0');
  for (int i = 0; i < 128; ++i) {
    packed[static_cast<std::size_t>(i)] = static_cast<char>(((i % 16) << 4) | 3);
    packed[static_cast<std::size_t>(128 + i)] = static_cast<char>((7 << 4) | (15 - i % 16));
  }
  CheckpointBuilder builder;
  builder.add_raw("x.weight.packed", "U8", {2, 128}, packed);
  builder.add_values("x.weight.scale", {4, 1}, {0.5f, 1.0f, 2.0f, 0.25f});
  builder.add_values("x.weight.zero_point", {4, 1}, {8.0f, 0.0f, 1.0f, 4.0f});
  builder.add("x.bias", {2});
  const auto layer = open(builder).linear("x", 2, 256);
  ASSERT_TRUE(layer.ok()) << layer.error().message;
  const std::vector<float> actual = values(*layer->weight);
  for (std::size_t i = 0; i < 128; ++i) {
    const auto code = static_cast<float>(i % 16);
    EXPECT_EQ(actual[i], (code - 8.0f) * 0.5f);
    EXPECT_EQ(actual[128 + i], 7.0f);
    EXPECT_EQ(actual[256 + i], (3.0f - 1.0f) * 2.0f);
    EXPECT_EQ(actual[384 + i], (15.0f - code - 4.0f) * 0.25f);
  }
}

TEST_F(WeightLoaderTest, Fp8ExpertsCountTheirRowScales) {
  // 0x38 is 1, 0x40 is 2, 0xb8 is -1, 0x7e is 448 in e4m3.
  const std::string codes{'\x38', '\x40', '\xb8', '\x7e', '\x40', '\x40', '\x38', '\x38'};
  for (const DType storage : {DType::kF32, DType::kBf16}) {
    CheckpointBuilder builder;
    builder.add_raw("up.weight", "F8_E4M3", {2, 2, 2}, codes);
    builder.add_values("up_scale", {2, 2}, {0.5f, 2.0f, 1.0f, 0.25f});
    const auto experts = open(builder, storage).experts("up.weight", "up_scale", 2, 2, 2);
    ASSERT_TRUE(experts.ok()) << experts.error().message;
    ASSERT_EQ(experts->size(), 2u);
    EXPECT_EQ(values(*(*experts)[0]), (std::vector<float>{0.5f, 1.0f, -2.0f, 896.0f}));
    EXPECT_EQ(values(*(*experts)[1]), (std::vector<float>{2.0f, 2.0f, 0.25f, 0.25f}));
  }
}

TEST_F(WeightLoaderTest, Fp8WithoutScalesIsAnError) {
  const auto experts =
      open(CheckpointBuilder().add_raw("up.weight", "F8_E4M3", {1, 1, 2}, "\x38\x38"))
          .experts("up.weight", "up_scale", 1, 1, 2);
  ASSERT_FALSE(experts.ok());
  EXPECT_NE(experts.error().message.find("up_scale"), std::string::npos);
}

TEST_F(WeightLoaderTest, StackedTakesTheFusedTensorOrItsParts) {
  const std::array<std::string, 2> parts{"a", "b"};
  const std::vector<float> wanted{1, 2, 3, 4};
  const auto fused =
      open(CheckpointBuilder().add_values("ab", {2, 2}, wanted)).stacked("ab", parts, 1, 2);
  ASSERT_TRUE(fused.ok()) << fused.error().message;
  EXPECT_EQ(values(**fused), wanted);
  const auto split =
      open(CheckpointBuilder().add_values("a", {1, 2}, {1, 2}).add_values("b", {1, 2}, {3, 4}))
          .stacked("ab", parts, 1, 2);
  ASSERT_TRUE(split.ok()) << split.error().message;
  EXPECT_EQ(values(**split), wanted);
}

}  // namespace
}  // namespace fovea
