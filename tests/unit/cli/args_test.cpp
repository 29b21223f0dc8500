#include "args.h"

#include <gmock/gmock.h>
#include <ostream>

#include "usage_error.h"

namespace fovea::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ParsedArgs parse(std::vector<std::string> args) { return parse_args(args); }

SkillArgs skill_args(std::vector<std::string> args) {
  ParsedArgs parsed = parse(std::move(args));
  if (const auto* text = std::get_if<PrintAndExit>(&parsed)) ADD_FAILURE() << text->err;
  auto* skill = std::get_if<SkillArgs>(&parsed);
  return skill != nullptr ? *skill : SkillArgs{};
}

TEST(Args, Caption_DefaultsAskForNothingSpecial) {
  const SkillArgs args = skill_args({"caption", "photo.jpg"});

  EXPECT_EQ(std::get<CaptionRequest>(args.skills.at(0)).length, CaptionLength::kNormal);
  EXPECT_EQ(args.picture.value().path, "photo.jpg");
  EXPECT_FALSE(args.model.model.has_value());
  EXPECT_EQ(args.model.options.device, "auto");
  EXPECT_EQ(args.model.options.num_threads, 0);
  EXPECT_FALSE(args.sampling.temperature.has_value());
  EXPECT_FALSE(args.sampling.max_tokens.has_value());
  EXPECT_TRUE(args.apply_exif);
  EXPECT_FALSE(args.stream || args.json || args.tokens || args.annotate);
}

TEST(Args, EveryOptionReachesItsField) {
  const SkillArgs args = skill_args({"query",
                                     "photo.jpg",
                                     "what?",
                                     "--model",
                                     "m",
                                     "--device",
                                     "cpu",
                                     "--dtype",
                                     "f32",
                                     "--threads",
                                     "3",
                                     "--max-context",
                                     "900",
                                     "--batch-invariant",
                                     "--compat",
                                     "clamp_boxes=false",
                                     "--compat",
                                     "coordinate_divisor=1023",
                                     "--reasoning",
                                     "--temperature",
                                     "0.5",
                                     "--top-p",
                                     "0.9",
                                     "--top-k",
                                     "40",
                                     "--min-p",
                                     "0.05",
                                     "--seed",
                                     "18446744073709551615",
                                     "--max-tokens",
                                     "24",
                                     "--stop",
                                     ".",
                                     "--stop",
                                     "\n",
                                     "--spatial-ref",
                                     "0.25,0.75",
                                     "--spatial-ref",
                                     "0.1,0.2,0.5,0.6",
                                     "--stream",
                                     "--json",
                                     "--tokens",
                                     "--annotate",
                                     "out.png",
                                     "--no-exif"});

  EXPECT_EQ(args.model.model, "m");
  EXPECT_EQ(args.model.options.device, "cpu");
  EXPECT_EQ(args.model.options.precision, Precision::kF32);
  EXPECT_TRUE(args.model.options.batch_invariant);
  EXPECT_EQ(args.model.options.num_threads, 3);
  EXPECT_EQ(args.model.options.max_context, 900);
  EXPECT_FALSE(args.model.options.compatibility.clamp_boxes);
  EXPECT_EQ(args.model.options.compatibility.coordinate_divisor, 1023);
  EXPECT_FLOAT_EQ(args.sampling.temperature.value(), 0.5F);
  EXPECT_FLOAT_EQ(args.sampling.top_p.value(), 0.9F);
  EXPECT_EQ(args.sampling.top_k, 40);
  EXPECT_FLOAT_EQ(args.sampling.min_p.value(), 0.05F);
  EXPECT_EQ(args.sampling.seed, 18446744073709551615U);
  EXPECT_EQ(args.sampling.max_tokens, 24);
  EXPECT_THAT(args.sampling.stop, ElementsAre(".", "\n"));
  EXPECT_TRUE(args.stream && args.json && args.tokens);
  EXPECT_EQ(args.annotate, "out.png");
  EXPECT_FALSE(args.apply_exif);
  const auto& query = std::get<QueryRequest>(args.skills.at(0));
  EXPECT_EQ(query.question, "what?");
  EXPECT_EQ(query.reasoning, true);
  EXPECT_THAT(query.spatial_refs, ElementsAre(SpatialRef(std::array{0.25F, 0.75F}),
                                              SpatialRef(std::array{0.1F, 0.2F, 0.5F, 0.6F})));
}

TEST(Args, WordOptionsReachTheirFields) {
  const SkillArgs args = skill_args({"caption",
                                     "photo.jpg",
                                     "--repetition-penalty",
                                     "1.2",
                                     "--presence-penalty",
                                     "-0.5",
                                     "--frequency-penalty",
                                     "0.25",
                                     "--logit-bias",
                                     "7=-100",
                                     "--logit-bias",
                                     "300=1.5",
                                     "--logprobs",
                                     "20",
                                     "--json",
                                     "-n",
                                     "3",
                                     "--image-cache",
                                     "cache",
                                     "--image-cache-disk",
                                     "1.5G"});

  EXPECT_FLOAT_EQ(args.sampling.repetition_penalty, 1.2F);
  EXPECT_FLOAT_EQ(args.sampling.presence_penalty, -0.5F);
  EXPECT_FLOAT_EQ(args.sampling.frequency_penalty, 0.25F);
  EXPECT_THAT(args.sampling.logit_bias, ElementsAre(std::pair(7, -100.0F), std::pair(300, 1.5F)));
  EXPECT_EQ(args.sampling.top_logprobs, 20);
  EXPECT_EQ(args.num_answers, 3);
  EXPECT_EQ(args.model.options.max_sequences, 3);
  EXPECT_EQ(args.model.options.image_cache_folder, "cache");
  EXPECT_EQ(args.model.options.image_cache_folder_bytes, std::size_t{3} << 29);
}

TEST(Args, FurtherTextsBecomeQuestionsOfTheirOwn) {
  const SkillArgs args = skill_args(
      {"detect", "p.jpg", "dog", "--also", " cat ", "--also", "car", "--max-objects", "2"});

  ASSERT_EQ(args.skills.size(), 3U);
  EXPECT_EQ(std::get<DetectRequest>(args.skills[1]).object, "cat");
  EXPECT_EQ(std::get<DetectRequest>(args.skills[2]).object, "car");
  EXPECT_EQ(std::get<DetectRequest>(args.skills[2]).max_objects, 2);
  EXPECT_EQ(args.model.options.max_sequences, 3);
}

TEST(Args, ManyAnswersFitTheQueueAndTakeTurns) {
  std::vector<std::string> args = {"query", "p.jpg", "q", "-n", "128"};
  for (int i = 0; i < 63; ++i) args.insert(args.end(), {"--also", "x"});

  const SkillArgs parsed = skill_args(args);

  EXPECT_EQ(parsed.model.options.max_queue, 64 * 128);
  EXPECT_EQ(parsed.model.options.max_sequences, 16);
}

TEST(Args, AnEnginesOptionsReachTheirFields) {
  const ParsedArgs parsed =
      parse({"bench", "serve", "--kv-cache-size", "2GiB", "--image-cache-size", "64M"});

  ASSERT_TRUE(std::holds_alternative<BenchServeArgs>(parsed));
  const EngineOptions& options = std::get<BenchServeArgs>(parsed).model.options;
  EXPECT_EQ(options.kv_cache_bytes, std::size_t{2} << 30);
  EXPECT_EQ(options.image_cache_bytes, std::size_t{64} << 20);
}

BenchServeArgs bench_args(std::vector<std::string> options) {
  options.insert(options.begin(), {"bench", "serve"});
  const ParsedArgs parsed = parse(options);
  if (const auto* text = std::get_if<PrintAndExit>(&parsed)) ADD_FAILURE() << text->err;
  const auto* args = std::get_if<BenchServeArgs>(&parsed);
  return args != nullptr ? *args : BenchServeArgs{};
}

TEST(Args, BenchServe_ARepeatedShareSaysHowManyChartsThereAre) {
  EXPECT_EQ(bench_args({}).num_pictures, 1510);
  EXPECT_EQ(bench_args({"--requests", "100"}).num_pictures, 100);
  EXPECT_EQ(bench_args({"--requests", "100", "--repeat", "0"}).num_pictures, 100);
  EXPECT_EQ(bench_args({"--requests", "100", "--repeat", "40"}).num_pictures, 60);
  EXPECT_TRUE(bench_args({"--requests", "100", "--repeat", "40"}).pictures_grow);
  EXPECT_FALSE(bench_args({"--requests", "100", "--pictures", "60"}).pictures_grow);
  EXPECT_THAT(usage_error_of({"bench", "serve", "--repeat", "1", "--pictures", "2"}),
              HasSubstr("give one of them"));
}

TEST(Args, BenchServe_OverloadTakesMultiplesAndADeadline) {
  const BenchServeArgs args = bench_args({"--overload", "1,2", "--deadline", "250"});

  EXPECT_THAT(args.overloads, ElementsAre(1, 2));
  EXPECT_EQ(args.deadline_ms, 250);
  EXPECT_EQ(args.num_rounds, 1);
  EXPECT_EQ(bench_args({"--overload", "2", "--rounds", "4"}).num_rounds, 4);
  EXPECT_THAT(usage_error_of({"bench", "serve", "--rounds", "4"}), HasSubstr("--overload"));
  EXPECT_THAT(usage_error_of({"bench", "serve", "--deadline", "5"}), HasSubstr("--overload"));
  EXPECT_THAT(usage_error_of({"bench", "serve", "--overload", "2", "--rate", "3"}),
              HasSubstr("leave out --rate"));
}

TEST(Args, Query_ReasonsOnlyWhenAsked) {
  EXPECT_EQ(std::get<QueryRequest>(skill_args({"query", "p.jpg", "what?"}).skills.at(0)).reasoning,
            false);
}

TEST(Args, Query_WithoutPictureTakesTheOneWordAsTheQuestion) {
  const SkillArgs args = skill_args({"query", "--no-picture", "what is a moon?"});

  EXPECT_FALSE(args.picture.has_value());
  EXPECT_EQ(std::get<QueryRequest>(args.skills.at(0)).question, "what is a moon?");
}

TEST(Args, TextThatIsACommandNameOrABracketIsStillText) {
  EXPECT_EQ(std::get<PointRequest>(skill_args({"point", "p.jpg", "detect"}).skills.at(0)).object,
            "detect");
  EXPECT_EQ(std::get<PointRequest>(skill_args({"point", "p.jpg", "[a,b]"}).skills.at(0)).object,
            "[a,b]");
}

TEST(Args, DashIsAPictureAndTextIsTrimmed) {
  const SkillArgs args = skill_args({"detect", "-", "  red car\n", "--max-objects", "4"});

  EXPECT_EQ(args.picture.value().path, "-");
  EXPECT_EQ(std::get<DetectRequest>(args.skills.at(0)).object, "red car");
  EXPECT_EQ(std::get<DetectRequest>(args.skills.at(0)).max_objects, 4);
}

TEST(Args, Info_TakesNoPicture) {
  const ParsedArgs parsed = parse({"info", "--json", "--model", "m"});

  ASSERT_TRUE(std::holds_alternative<InfoArgs>(parsed));
  EXPECT_TRUE(std::get<InfoArgs>(parsed).json);
  EXPECT_EQ(std::get<InfoArgs>(parsed).model.model, "m");
}

TEST(Args, Pull_ReadsItsOptions) {
  const ParsedArgs parsed =
      parse({"pull", "a/b@main", "--endpoint", "https://mirror", "--token-file", "t", "--ca-file",
             "c", "--tokenizer", "d/e", "--retries", "0", "--retry-wait", "2", "--stall-timeout",
             "9", "--models-dir", "m", "--json"});

  ASSERT_TRUE(std::holds_alternative<PullArgs>(parsed));
  const auto& args = std::get<PullArgs>(parsed);
  EXPECT_EQ(args.model, "a/b@main");
  EXPECT_EQ(args.endpoint, "https://mirror");
  EXPECT_EQ(args.token_file, "t");
  EXPECT_EQ(args.ca_file, "c");
  EXPECT_EQ(args.tokenizer, "d/e");
  EXPECT_EQ(args.retries, 0);
  EXPECT_EQ(args.retry_wait_s, 2);
  EXPECT_EQ(args.stall_timeout_s, 9);
  EXPECT_EQ(args.models_dir, "m");
  EXPECT_TRUE(args.json);
}

TEST(Args, Models_ListsUnlessToldToRemove) {
  EXPECT_FALSE(std::get<ModelsArgs>(parse({"models", "--json"})).remove.has_value());
  const ParsedArgs parsed = parse({"models", "rm", "moondream2", "--json"});
  ASSERT_TRUE(std::holds_alternative<ModelsArgs>(parsed));
  EXPECT_EQ(std::get<ModelsArgs>(parsed).remove, "moondream2");
  EXPECT_TRUE(std::get<ModelsArgs>(parsed).json);
}

struct BadUsage {
  std::vector<std::string> args;
  std::string message;  // a part of it
};

void PrintTo(const BadUsage& usage, std::ostream* out) {
  *out << ::testing::PrintToString(usage.args);
}

class ArgsRefuse : public ::testing::TestWithParam<BadUsage> {};

TEST_P(ArgsRefuse, WithAMessageThatNamesTheMistake) {
  EXPECT_THAT(usage_error_of(GetParam().args), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Usage, ArgsRefuse,
    ::testing::Values(
        BadUsage{{"caption"}, "a PICTURE is missing"},
        BadUsage{{"query", "p.jpg"}, "a QUESTION is missing"},
        BadUsage{{"query", "p.jpg", "  "}, "a QUESTION is missing"},
        BadUsage{{"query", "--no-picture"}, "a QUESTION is missing"},
        BadUsage{{"query", "--no-picture", "p.jpg", "x"}, "--no-picture takes a QUESTION"},
        BadUsage{{"query", "--no-picture", "x", "--spatial-ref", "0,0"}, "needs a picture"},
        BadUsage{{"query", "--no-picture", "x", "--annotate", "o.png"}, "needs a picture"},
        BadUsage{{"detect", "p.jpg"}, "a THING to look for is missing"},
        BadUsage{{"query", "p.jpg", "two", "words"}, "needs quotes"},
        BadUsage{{"paint", "p.jpg"}, "there is no command 'paint'"},
        BadUsage{{"caption", "p.jpg", "--lenght", "short"}, "caption has no option --lenght\n"},
        BadUsage{{"caption", "p.jpg", "--lenght=short"}, "caption has no option --lenght\n"},
        BadUsage{{"bench", "serve", "--tempo", "1"}, "bench serve has no option --tempo\n"},
        BadUsage{{"caption", "p.jpg", "--length", "tiny"}, "none of short, normal, long"},
        BadUsage{{"caption", "p.jpg", "--reasoning"}, "caption has no option --reasoning"},
        BadUsage{{"query", "p.jpg", "-what"}, "a text that begins with - goes behind --"},
        BadUsage{{"query", "p.jpg", "--", "what", "--json"}, "'--json' is too much: behind --"},
        BadUsage{{"query", "p.jpg", "what", "--reasoning=maybe"}, "--reasoning takes no value"},
        BadUsage{{"--model", "m", "caption", "p.jpg"}, "a COMMAND comes first, not '--model'"},
        BadUsage{{"--frobnicate"}, "a COMMAND comes first, not '--frobnicate'"},
        BadUsage{{"bench"}, "a COMMAND is missing"},
        BadUsage{{"caption", "p.jpg", "--dtype", "f16"}, "none of auto, f32, bf16, fp8, int4"},
        BadUsage{{"caption", "p.jpg", "--model"}, "fovea: --model needs a value\n"},
        BadUsage{{"detect", "p.jpg", "x", "--annotate"}, "--annotate needs a value\n"},
        BadUsage{{"caption", "p.jpg", "--stop", "a", "--stop", "b", "--stop"},
                 "--stop needs a value"},
        BadUsage{{"caption", "p.jpg", "--top-k", "1", "--top-k", "1"},
                 "fovea: --top-k can be given once only\n"},
        BadUsage{{"caption", "p.jpg", "--model", ""}, "--model"},
        BadUsage{{"caption", "p.jpg", "--tokens"}, "--tokens needs --json"},
        BadUsage{{"caption", "p.jpg", "--logprobs", "2"}, "--logprobs needs --json"},
        BadUsage{{"caption", "p.jpg", "-n", "2", "--stream"}, "leave out -n"},
        BadUsage{{"query", "p.jpg", "a", "--also", "b", "--stream"}, "leave out --also"},
        BadUsage{{"query", "p.jpg", "a", "--also", " "}, "the text of --also is empty"},
        BadUsage{{"query", "p.jpg", "a", "--also", "\xff"}, "the text of --also is not UTF-8"},
        BadUsage{{"query", "p.jpg", "caf\xe9"}, "the QUESTION is not UTF-8"},
        BadUsage{{"detect", "p.jpg", "\xed\xa0\x80"}, "the THING is not UTF-8"},
        BadUsage{{"query", "p.jpg", "a", "-n", "2", "--annotate", "o.png"}, "leave out -n"},
        BadUsage{{"detect", "p.jpg", "a", "-n", "2"}, "-n"},
        BadUsage{{"caption", "p.jpg", "--also", "b"}, "--also"},
        BadUsage{{"caption", "p.jpg", "--image-cache", ""}, "--image-cache"},
        BadUsage{{"detect", "p.jpg", "x", "--annotate", ""},
                 "--annotate: the file's name is empty"},
        BadUsage{{"detect", "p.jpg", "x", "--annotate", "out.jpg"}, "must end in .png"}));

INSTANTIATE_TEST_SUITE_P(
    Numbers, ArgsRefuse,
    ::testing::Values(
        BadUsage{{"caption", "p", "--temperature", "nan"}, "'nan' is not a number from 0 up"},
        BadUsage{{"caption", "p", "--temperature", "inf"}, "'inf' is not a number"},
        BadUsage{{"caption", "p", "--temperature", "1e300"}, "'1e300' is not a number"},
        BadUsage{{"caption", "p", "--temperature", "-0.1"}, "'-0.1' is not a number from 0 up"},
        BadUsage{{"caption", "p", "--temperature", "1,5"}, "'1,5' is not a number"},
        BadUsage{{"caption", "p", "--temperature", ""}, "'' is not a number"},
        BadUsage{{"caption", "p", "--top-p", "0"}, "above 0, at most 1"},
        BadUsage{{"caption", "p", "--top-p", "1.01"}, "above 0, at most 1"},
        BadUsage{{"caption", "p", "--min-p", "1"}, "from 0 to below 1"},
        BadUsage{{"caption", "p", "--top-k", "-1"}, "'-1' is not a whole number from 0 up"},
        BadUsage{{"caption", "p", "--seed", "18446744073709551616"},
                 "is more than 18446744073709551615"},
        BadUsage{{"caption", "p", "--seed", "0x10"}, "not a whole number"},
        BadUsage{{"caption", "p", "--max-tokens", "0"}, "from 1 up"},
        BadUsage{{"caption", "p", "--max-tokens", "3000000000"}, "is more than 2147483647"},
        BadUsage{{"caption", "p", "--max-tokens", "99999999999999999999"},
                 "is more than 2147483647"},
        BadUsage{{"caption", "p", "--max-tokens", "2.5"}, "from 1 up"},
        BadUsage{{"caption", "p", "--threads", "0"}, "from 1 up"},
        BadUsage{{"caption", "p", "--threads", "1025"}, "'1025' is more than 1024"},
        BadUsage{{"caption", "p", "--repetition-penalty", "0"}, "not a number above 0"},
        BadUsage{{"caption", "p", "--presence-penalty", "2.1"}, "from -2 to 2"},
        BadUsage{{"caption", "p", "--frequency-penalty", "x"}, "from -2 to 2"},
        BadUsage{{"caption", "p", "--logit-bias", "7"}, "is not ID=VALUE"},
        BadUsage{{"caption", "p", "--logit-bias", "-1=2"}, "is not ID=VALUE"},
        BadUsage{{"caption", "p", "--logit-bias", "1=101"}, "from -100 to 100"},
        BadUsage{{"caption", "p", "--logit-bias", "1=nan"}, "from -100 to 100"},
        BadUsage{{"caption", "p", "--logprobs", "21", "--json"}, "goes up to 20"},
        BadUsage{{"caption", "p", "-n", "0"}, "from 1 up"},
        BadUsage{{"caption", "p", "-n", "129"}, "goes up to 128"},
        BadUsage{{"caption", "p", "--image-cache-disk", "4X"}, "'4X' is not a size"},
        BadUsage{{"caption", "p", "--image-cache-disk", "-1"}, "is not a size"},
        BadUsage{{"caption", "p", "--image-cache-disk", "1.5"}, "is not a size"},
        BadUsage{{"caption", "p", "--image-cache-disk", ""}, "is not a size"},
        BadUsage{{"caption", "p", "--image-cache-disk", "9999999999T"}, "too large"},
        BadUsage{{"caption", "p", "--max-context", "x"}, "'x' is not a whole number"},
        BadUsage{{"detect", "p", "x", "--max-objects", "0"}, "from 1 up"},
        BadUsage{{"point", "p", "x", "--max-objects", "10001"}, "is more than 10000"},
        BadUsage{{"point", "p", "x", "--spatial-ref", "0.5"}, "has 1 number;"},
        BadUsage{{"point", "p", "x", "--spatial-ref", "0.1,0.2,0.3"}, "has 3 numbers"},
        BadUsage{{"point", "p", "x", "--spatial-ref", "0.5,1.5"}, "fractions from 0 to 1"},
        BadUsage{{"point", "p", "x", "--spatial-ref", "nan,0.5"}, "fractions from 0 to 1"},
        BadUsage{{"point", "p", "x", "--spatial-ref", "-0.1,0.5"}, "fractions from 0 to 1"},
        BadUsage{{"point", "p", "x", "--spatial-ref", "0.1, 0.2"}, "fractions from 0 to 1"},
        BadUsage{{"point", "p", "x", "--spatial-ref", "0.5,0.5,0.4,0.6"}, "X1 <= X2"},
        BadUsage{{"caption", "p", "--compat", "clamp_boxes"}, "is not KEY=VALUE"},
        BadUsage{{"caption", "p", "--compat", "clamp_boxes=maybe"}, "is true or false"},
        BadUsage{{"caption", "p", "--compat", "coordinate_divisor=7"}, "1023 or 1024"},
        BadUsage{{"caption", "p", "--compat", "color=blue"}, "no switch is called 'color'"}));

TEST(Args, MoreThanSixteenStopTextsAreRefused) {
  std::vector<std::string> args = {"caption", "p.jpg"};
  for (int i = 0; i < 17; ++i) args.insert(args.end(), {"--stop", "x"});

  EXPECT_THAT(usage_error_of(args), HasSubstr("16 times at most"));
}

TEST(Args, MoreThanSixtyFourSpatialReferencesAreRefused) {
  std::vector<std::string> args = {"query", "p.jpg", "what?"};
  for (int i = 0; i < 65; ++i) args.insert(args.end(), {"--spatial-ref", "0.5,0.5"});

  EXPECT_THAT(usage_error_of(args), HasSubstr("64 times at most"));
}

TEST(Args, UsageErrorsPointToTheHelpOfTheCommand) {
  EXPECT_THAT(usage_error_of({"detect", "p.jpg"}), HasSubstr("Try: fovea detect --help"));
}

TEST(Args, HelpAndVersionAreNoErrors) {
  for (const std::vector<std::string>& args :
       {std::vector<std::string>{"--help"}, {"query", "--help"}, {"--version"}}) {
    const ParsedArgs parsed = parse(args);
    ASSERT_TRUE(std::holds_alternative<PrintAndExit>(parsed));
    EXPECT_EQ(std::get<PrintAndExit>(parsed).exit_code, kExitOk);
    EXPECT_EQ(std::get<PrintAndExit>(parsed).err, "");
  }
  EXPECT_EQ(std::get<PrintAndExit>(parse({"--version"})).out, "fovea 1.2.3\n");
  EXPECT_THAT(std::get<PrintAndExit>(parse({"query", "--help"})).out,
              AllOf(HasSubstr("--spatial-ref"), HasSubstr("Examples:"), HasSubstr("QUESTION")));
}

TEST(Args, NothingAtAllShowsTheHelpAsAnError) {
  EXPECT_THAT(usage_error_of({}), HasSubstr("Commands:"));
}

}  // namespace
}  // namespace fovea::cli
