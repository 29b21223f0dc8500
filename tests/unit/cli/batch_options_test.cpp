#include <array>
#include <gmock/gmock.h>
#include <set>

#include "args.h"
#include "batch_question.h"
#include "usage_error.h"
#include "utf8.h"

namespace fovea::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> with(std::vector<std::string> more,
                              std::vector<std::string> args = {"batch", "in", "--skill", "detect",
                                                               "--text", "car", "--out", "r"}) {
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

BatchArgs batch_args(const std::vector<std::string>& args) {
  ParsedArgs parsed = parse_args(args);
  if (const auto* text = std::get_if<PrintAndExit>(&parsed)) ADD_FAILURE() << text->err;
  auto* batch = std::get_if<BatchArgs>(&parsed);
  return batch != nullptr ? *batch : BatchArgs{};
}

TEST(BatchOptions, EveryOptionReachesItsField) {
  const BatchArgs args = batch_args({"batch",
                                     "a.jpg",
                                     "in",
                                     "-r",
                                     "--list",
                                     "l",
                                     "--skill",
                                     "detect",
                                     "--text",
                                     "red car",
                                     "--text",
                                     "dog",
                                     "--max-objects",
                                     "7",
                                     "--out",
                                     "r.jsonl",
                                     "--csv",
                                     "r.csv",
                                     "--coco",
                                     "r.json",
                                     "--yolo",
                                     "y",
                                     "--annotate",
                                     "ann",
                                     "--tokens",
                                     "--overwrite",
                                     "--dry-run",
                                     "--no-exif",
                                     "--max-sequences",
                                     "4",
                                     "--image-cache",
                                     "cache",
                                     "--temperature",
                                     "0.5"});

  EXPECT_THAT(args.paths, ElementsAre("a.jpg", "in"));
  EXPECT_THAT(args.lists, ElementsAre("l"));
  EXPECT_TRUE(args.recursive && args.tokens && args.overwrite && args.dry_run);
  EXPECT_FALSE(args.apply_exif || args.sidecar);
  ASSERT_EQ(args.questions.size(), 2U);
  EXPECT_EQ(std::get<DetectRequest>(args.questions[0]).object, "red car");
  EXPECT_EQ(std::get<DetectRequest>(args.questions[1]).max_objects, 7);
  EXPECT_EQ(args.out, "r.jsonl");
  EXPECT_EQ(args.csv, "r.csv");
  EXPECT_EQ(args.coco, "r.json");
  EXPECT_EQ(args.yolo, "y");
  EXPECT_EQ(args.annotate, "ann");
  EXPECT_EQ(args.model.options.max_sequences, 4);
  EXPECT_EQ(args.model.options.image_cache_folder, "cache");
  EXPECT_FLOAT_EQ(args.sampling.temperature.value(), 0.5F);
}

TEST(BatchOptions, PlacesAndASchemaReachTheirQuestions) {
  const BatchArgs query = batch_args({"batch", "in", "--skill", "query", "--text", "a", "--text",
                                      "b", "--out", "r", "--spatial-ref", "0.25,0.5",
                                      "--spatial-ref", "0,0,1,0.5", "--json-schema", "s.json"});
  ASSERT_EQ(query.questions.size(), 2U);
  EXPECT_EQ(query.json_schema, "s.json");
  for (const SkillRequest& question : query.questions) {
    EXPECT_THAT(std::get<QueryRequest>(question).spatial_refs,
                ElementsAre(SpatialRef(std::array{0.25F, 0.5F}),
                            SpatialRef(std::array{0.0F, 0.0F, 1.0F, 0.5F})));
  }
  const BatchArgs point = batch_args({"batch", "in", "--skill", "point", "--text", "gaze", "--out",
                                      "r", "--spatial-ref", "0.25,0.5"});
  EXPECT_EQ(std::get<PointRequest>(point.questions.at(0)).spatial_refs.size(), 1U);
}

TEST(BatchOptions, KeepsPicturesOnlyForSeveralQuestions) {
  EXPECT_FALSE(batch_args(with({})).model.options.keep_prefixes);
  EXPECT_EQ(batch_args(with({})).model.options.image_cache_bytes, 0U);
  EXPECT_TRUE(batch_args(with({"--text", "dog"})).model.options.keep_prefixes);
  EXPECT_NE(batch_args(with({"--image-cache", "d"})).model.options.image_cache_bytes, 0U);
}

TEST(BatchOptions, WhatDoesNotFitTogetherIsWrongUsage) {
  const std::vector<std::string> caption = {"batch", "in", "--skill", "caption", "--out", "r"};
  EXPECT_THAT(usage_error_of({"batch", "--skill", "caption", "--out", "r"}), HasSubstr("PATHS"));
  EXPECT_THAT(usage_error_of({"batch", "in", "--out", "r"}), HasSubstr("--skill is missing"));
  EXPECT_THAT(usage_error_of({"batch", "in", "--skill", "caption"}), HasSubstr("--out"));
  EXPECT_THAT(usage_error_of({"batch", "in", "--skill", "detect", "--out", "r"}),
              HasSubstr("--text is missing"));
  EXPECT_THAT(usage_error_of(with({"--text", "x"}, caption)), HasSubstr("takes no --text"));
  EXPECT_THAT(usage_error_of(with({"--text", "car"})), HasSubstr("given twice"));
  EXPECT_THAT(usage_error_of(with({"--text", "\xff"})), HasSubstr("UTF-8"));
  EXPECT_THAT(usage_error_of(with({"--coco", "c"}, caption)), HasSubstr("--skill detect"));
  EXPECT_THAT(usage_error_of(with({"--annotate", "c"}, caption)), HasSubstr("--annotate needs"));
  EXPECT_THAT(usage_error_of(with({"--sidecar"})), HasSubstr("--sidecar needs"));
  EXPECT_THAT(usage_error_of(with({"--length", "short"})), HasSubstr("--length needs"));
  EXPECT_THAT(usage_error_of(with({"--reasoning"})), HasSubstr("--reasoning needs"));
  EXPECT_THAT(usage_error_of(with({"--max-objects", "2"}, caption)), HasSubstr("--max-objects"));
  EXPECT_THAT(usage_error_of(with({"--spatial-ref", "0,0"})), HasSubstr("--spatial-ref needs"));
  EXPECT_THAT(usage_error_of(with({"--spatial-ref", "0"})), HasSubstr("has 1 number;"));
  EXPECT_THAT(usage_error_of(with({"--json-schema", "{}"})), HasSubstr("--json-schema needs"));
  EXPECT_THAT(usage_error_of(with({"--csv", "./r"})), HasSubstr("two outputs"));
  EXPECT_THAT(usage_error_of(with({"--max-sequences", "1025"})), HasSubstr("1024"));
}

TEST(BatchKey, TellsQuestionsApartButNotSpeeds) {
  const auto key = [](std::vector<std::string> more) {
    return batch_key(batch_args(with(std::move(more))), "model");
  };

  EXPECT_EQ(key({}).size(), 16U);
  EXPECT_EQ(key({}), key({"--threads", "3", "--max-sequences", "2", "--csv", "c"}));
  EXPECT_EQ(key({}), key({"--text", "dog"})) << "texts are compared one by one";
  const std::vector<std::vector<std::string>> others = {{"--max-objects", "3"},
                                                        {"--temperature", "0"},
                                                        {"--top-k", "3"},
                                                        {"--seed", "1"},
                                                        {"--dtype", "f32"},
                                                        {"--no-exif"},
                                                        {"--tokens"},
                                                        {"--max-context", "900"},
                                                        {"--adapter", "a=b"},
                                                        {"--max-tokens", "9"},
                                                        {"--compat", "clamp_boxes=false"}};
  for (const auto& other : others) EXPECT_NE(key({}), key(other)) << other[0];
}

TEST(BatchKey, TellsPlacesAndSchemasApart) {
  const auto key = [](std::vector<SpatialRef> refs, std::optional<std::string> schema) {
    BatchArgs args;
    args.questions = {
        QueryRequest{.question = "?", .spatial_refs = std::move(refs), .json_schema = schema}};
    return batch_key(args, "model");
  };
  const SpatialRef point = std::array{0.25F, 0.5F};
  const SpatialRef box = std::array{0.25F, 0.5F, 0.75F, 1.0F};
  const std::set<std::string> keys{key({}, {}),           key({point}, {}), key({box}, {}),
                                   key({point, box}, {}), key({}, "{}"),    key({}, "{ }")};
  EXPECT_EQ(keys.size(), 6U);
}

TEST(Utf8, ReplacesWhatIsNone) {
  EXPECT_EQ(replace_bad_utf8("Käfer 月 😀"), "Käfer 月 😀");
  EXPECT_EQ(replace_bad_utf8("a\xffz"), "a\uFFFDz");
  EXPECT_EQ(replace_bad_utf8("\xc3"), "\uFFFD") << "cut off";
  EXPECT_EQ(replace_bad_utf8("\xc0\x80"), "\uFFFD\uFFFD") << "overlong";
  EXPECT_EQ(replace_bad_utf8("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD") << "a surrogate";
  EXPECT_EQ(replace_bad_utf8("\xf4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD") << "beyond Unicode";
}

}  // namespace
}  // namespace fovea::cli
