#include "args.h"

#include <gmock/gmock.h>
#include <ostream>

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

std::string usage_error_of(std::vector<std::string> args) {
  ParsedArgs parsed = parse(std::move(args));
  const auto* text = std::get_if<PrintAndExit>(&parsed);
  if (text == nullptr) return "accepted";
  EXPECT_EQ(text->exit_code, kExitUsage);
  EXPECT_EQ(text->out, "");
  return text->err;
}

TEST(Args, Caption_DefaultsAskForNothingSpecial) {
  const SkillArgs args = skill_args({"caption", "photo.jpg"});

  EXPECT_EQ(std::get<CaptionRequest>(args.skill).length, CaptionLength::kNormal);
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
  const auto& query = std::get<QueryRequest>(args.skill);
  EXPECT_EQ(query.question, "what?");
  EXPECT_EQ(query.reasoning, true);
  EXPECT_THAT(query.spatial_refs, ElementsAre(SpatialRef(std::array{0.25F, 0.75F}),
                                              SpatialRef(std::array{0.1F, 0.2F, 0.5F, 0.6F})));
}

TEST(Args, Query_ReasonsOnlyWhenAsked) {
  EXPECT_EQ(std::get<QueryRequest>(skill_args({"query", "p.jpg", "what?"}).skill).reasoning, false);
}

TEST(Args, Query_WithoutPictureTakesTheOneWordAsTheQuestion) {
  const SkillArgs args = skill_args({"query", "--no-picture", "what is a moon?"});

  EXPECT_FALSE(args.picture.has_value());
  EXPECT_EQ(std::get<QueryRequest>(args.skill).question, "what is a moon?");
}

TEST(Args, TextThatIsACommandNameOrABracketIsStillText) {
  EXPECT_EQ(std::get<PointRequest>(skill_args({"point", "p.jpg", "detect"}).skill).object,
            "detect");
  EXPECT_EQ(std::get<PointRequest>(skill_args({"point", "p.jpg", "[a,b]"}).skill).object, "[a,b]");
}

TEST(Args, DashIsAPictureAndTextIsTrimmed) {
  const SkillArgs args = skill_args({"detect", "-", "  red car\n", "--max-objects", "4"});

  EXPECT_EQ(args.picture.value().path, "-");
  EXPECT_EQ(std::get<DetectRequest>(args.skill).object, "red car");
  EXPECT_EQ(std::get<DetectRequest>(args.skill).max_objects, 4);
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
        BadUsage{{"caption", "p.jpg", "--lenght", "short"}, "--lenght"},
        BadUsage{{"caption", "p.jpg", "--length", "tiny"}, "none of short, normal, long"},
        BadUsage{{"caption", "p.jpg", "--reasoning"}, "--reasoning"},
        BadUsage{{"caption", "p.jpg", "--dtype", "f16"}, "none of auto, f32, bf16"},
        BadUsage{{"caption", "p.jpg", "--model"}, "--model"},
        BadUsage{{"caption", "p.jpg", "--model", ""}, "--model"},
        BadUsage{{"caption", "p.jpg", "--tokens"}, "--tokens needs --json"},
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
        BadUsage{{"caption", "p", "--seed", "18446744073709551616"}, "not a whole number"},
        BadUsage{{"caption", "p", "--seed", "0x10"}, "not a whole number"},
        BadUsage{{"caption", "p", "--max-tokens", "0"}, "from 1 up"},
        BadUsage{{"caption", "p", "--max-tokens", "3000000000"}, "from 1 up"},
        BadUsage{{"caption", "p", "--max-tokens", "2.5"}, "from 1 up"},
        BadUsage{{"caption", "p", "--threads", "0"}, "from 1 up"},
        BadUsage{{"caption", "p", "--max-context", "x"}, "'x' is not a whole number"},
        BadUsage{{"detect", "p", "x", "--max-objects", "0"}, "from 1 up"},
        BadUsage{{"point", "p", "x", "--spatial-ref", "0.5"}, "has 1 numbers"},
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
