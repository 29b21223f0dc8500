#include "io/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "temp_folder.h"

namespace fovea {
namespace {

using testing::HasSubstr;

// One U8 tensor of one byte.
std::string shard(const std::string& tensor) {
  return safetensors_bytes(
      R"({")" + tensor + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x");
}

Error open_error(const std::filesystem::path& path) {
  const auto checkpoint = Checkpoint::open(path);
  return checkpoint.ok() ? Error{ErrorCode::kInternal, "no error"} : checkpoint.error();
}

TEST(Checkpoint, OpensAFile) {
  const TempFolder folder;
  const auto checkpoint = Checkpoint::open(folder.write("some.safetensors", shard("a.weight")));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  ASSERT_NE(checkpoint->find("a.weight"), nullptr);
  EXPECT_EQ(checkpoint->find("a.weight")->bytes.size(), 1u);
  EXPECT_EQ(checkpoint->find("a.weigh"), nullptr);
  EXPECT_EQ(checkpoint->total_bytes(), 1u);
  EXPECT_EQ(checkpoint->folder(), folder.path());
}

TEST(Checkpoint, PrefersModelSafetensorsInAFolder) {
  const TempFolder folder;
  folder.write("activations.safetensors", shard("other"));
  folder.write("model.safetensors", shard("a"));
  const auto checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  EXPECT_NE(checkpoint->find("a"), nullptr);
  EXPECT_EQ(checkpoint->tensors().size(), 1u);
}

TEST(Checkpoint, TakesTheOnlySafetensorsOfAFolder) {
  const TempFolder folder;
  folder.write("moondream.safetensors", shard("a"));
  folder.write("config.json", "{}");
  EXPECT_TRUE(Checkpoint::open(folder.path()).ok());
}

TEST(Checkpoint, RefusesToGuessBetweenSeveralFiles) {
  const TempFolder folder;
  folder.write("one.safetensors", shard("a"));
  folder.write("two.safetensors", shard("b"));
  EXPECT_THAT(open_error(folder.path()).message,
              HasSubstr("(one.safetensors, two.safetensors, ...)"));
}

TEST(Checkpoint, NamesWhatAnEmptyFolderLacks) {
  const TempFolder folder;
  const Error error = open_error(folder.path());
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("holds no model.safetensors"));
}

TEST(Checkpoint, NamesAMissingPath) {
  const Error error = open_error("/nonexistent/model");
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("/nonexistent/model"));
}

TEST(Checkpoint, ExplainsPickles) {
  const TempFolder folder;
  const auto path = folder.write("model.pt", "PK\x03\x04");
  for (const auto& asked : {path, folder.path()}) {
    const Error error = open_error(asked);
    EXPECT_EQ(error.code, ErrorCode::kUnsupported);
    EXPECT_THAT(error.message, HasSubstr("convert it to safetensors"));
  }
}

TEST(Checkpoint, StripsEveryCompiledPrefix) {
  const TempFolder folder;
  const auto checkpoint =
      Checkpoint::open(folder.write("m.safetensors", shard("model._orig_mod.text._orig_mod.wte")));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  EXPECT_NE(checkpoint->find("model.text.wte"), nullptr);
}

TEST(Checkpoint, RefusesNamesThatMeetAfterStripping) {
  const TempFolder folder;
  const auto path = folder.write(
      "m.safetensors",
      safetensors_bytes(R"({"a.b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                        R"("a._orig_mod.b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                        "xy"));
  EXPECT_THAT(open_error(path).message, HasSubstr("\"a.b\" twice"));
}

TEST(CheckpointIndex, GathersTheShards) {
  const TempFolder folder;
  folder.write("1.safetensors", shard("a"));
  folder.write("2.safetensors", shard("b._orig_mod.c"));
  folder.write(
      "model.safetensors.index.json",
      R"({"metadata":{},"weight_map":{"a":"1.safetensors","b._orig_mod.c":"2.safetensors"}})");
  for (const auto& path : {folder.path(), folder.path() / "model.safetensors.index.json"}) {
    const auto checkpoint = Checkpoint::open(path);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
    EXPECT_NE(checkpoint->find("a"), nullptr);
    EXPECT_NE(checkpoint->find("b.c"), nullptr);
    EXPECT_EQ(checkpoint->total_bytes(), 2u);
    EXPECT_EQ(checkpoint->folder(), folder.path());
  }
}

TEST(CheckpointIndex, NamesAMissingShard) {
  const TempFolder folder;
  const auto path = folder.write("i.json", R"({"weight_map":{"a":"gone.safetensors"}})");
  const Error error = open_error(path);
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("\"a\""));
  EXPECT_THAT(error.message, HasSubstr("gone.safetensors"));
}

TEST(CheckpointIndex, NamesATensorThatItsShardLacks) {
  const TempFolder folder;
  folder.write("1.safetensors", shard("a"));
  const auto path =
      folder.write("i.json", R"({"weight_map":{"a":"1.safetensors","b":"1.safetensors"}})");
  EXPECT_THAT(open_error(path).message,
              HasSubstr("\"b\" in 1.safetensors, which does not hold it"));
}

TEST(CheckpointIndex, NamesATensorOfTwoShards) {
  const TempFolder folder;
  folder.write("1.safetensors", shard("a"));
  folder.write("2.safetensors",
               safetensors_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                 R"("b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                 "xy"));
  const auto path =
      folder.write("i.json", R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
  EXPECT_THAT(open_error(path).message, HasSubstr("\"a\" twice"));
}

TEST(CheckpointIndex, RefusesShardsElsewhere) {
  const TempFolder folder;
  for (const char* shard_name :
       {"../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ""}) {
    const auto path =
        folder.write("i.json", R"({"weight_map":{"a":")" + std::string(shard_name) + R"("}})");
    EXPECT_EQ(open_error(path).code, ErrorCode::kInvalidArgument) << shard_name;
  }
}

TEST(CheckpointIndex, RefusesAFileWithoutAMap) {
  const TempFolder folder;
  EXPECT_THAT(open_error(folder.write("config.json", "{}")).message, HasSubstr("weight_map"));
  EXPECT_THAT(open_error(folder.write("i.json", R"({"weight_map":{"a":1}})")).message,
              HasSubstr("\"a\""));
  EXPECT_THAT(open_error(folder.write("j.json", R"({"weight_map":{"a":"1","a":"2"}})")).message,
              HasSubstr("\"a\" twice"));
}

}  // namespace
}  // namespace fovea
