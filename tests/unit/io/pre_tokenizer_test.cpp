#include "io/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "io/gpt2_scanner.h"
#include "io/regex.h"
#include "io/utf8.h"

namespace fovea {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> split(const std::string& steps, std::string_view text) {
  const auto json =
      json::parse(R"({"type":"Sequence","pretokenizers":[)" + steps +
                      R"(,{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})",
                  "steps");
  EXPECT_TRUE(json.ok()) << json.error().message;
  const auto pre_tokenizer = PreTokenizer::from_json(*json, "steps");
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.error().message;
  PreTokenizer::Pieces pieces;
  pre_tokenizer->split(text, pieces);
  return {pieces.views.begin(), pieces.views.end()};
}

std::string split_step(const std::string& behavior, bool invert,
                       const std::string& pattern = R"({"String":"-"})") {
  return R"({"type":"Split","pattern":)" + pattern + R"(,"behavior":")" + behavior +
         R"(","invert":)" + (invert ? "true" : "false") + "}";
}

// Expected pieces as the documentation of `tokenizers` gives them.
TEST(PreTokenizer, SplitsByEachBehavior) {
  const std::string text = "the-final--countdown";
  EXPECT_THAT(split(split_step("Removed", false), text), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(split(split_step("Isolated", false), text),
              ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(split(split_step("MergedWithPrevious", false), text),
              ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(split(split_step("MergedWithNext", false), text),
              ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(split(split_step("Contiguous", false), text),
              ElementsAre("the", "-", "final", "--", "countdown"));
}

TEST(PreTokenizer, InvertsMatches) {
  EXPECT_THAT(split(split_step("Removed", true), "a-b--"), ElementsAre("-", "-", "-"));
  EXPECT_THAT(split(split_step("Removed", true, R"({"Regex":"[a-z]+"})"), "ab1c"),
              ElementsAre("ab", "c"));
}

TEST(PreTokenizer, KnowsTheSmallSteps) {
  EXPECT_THAT(split(R"({"type":"Digits","individual_digits":true})", "a12"),
              ElementsAre("a", "1", "2"));
  EXPECT_THAT(split(R"({"type":"Digits","individual_digits":false})", "a12b"),
              ElementsAre("a", "12", "b"));
  EXPECT_THAT(split(R"({"type":"Punctuation"})", "a+b?"), ElementsAre("a", "+", "b", "?"));
  EXPECT_THAT(split(R"({"type":"Punctuation","behavior":"Removed"})", "a+b?"),
              ElementsAre("a", "b"));
  EXPECT_THAT(split(R"({"type":"Whitespace"})", " ab, c"), ElementsAre("ab", ",", "c"));
  EXPECT_THAT(split(R"({"type":"WhitespaceSplit"})", " ab, c"), ElementsAre("ab,", "c"));
  EXPECT_THAT(split(R"({"type":"CharDelimiterSplit","delimiter":"_"})", "a__b"),
              ElementsAre("a", "b"));
}

TEST(PreTokenizer, PunctuationIsThatOfUnicode8) {
  const std::string step = R"({"type":"Punctuation"})";
  EXPECT_THAT(split(step, "a\u2e42b"), ElementsAre("a", "\u2e42", "b"));
  EXPECT_THAT(split(step, "a\u2e43b"), ElementsAre("a\u2e43b"));
  EXPECT_THAT(split(step, "a\u166db"), ElementsAre("a", "\u166d", "b"));
}

TEST(PreTokenizer, AppliesStepsOneAfterTheOther) {
  EXPECT_THAT(
      split(R"({"type":"Digits","individual_digits":true},)" + split_step("Isolated", false),
            "1-a"),
      ElementsAre("1", "-", "a"));
}

TEST(PreTokenizer, AnEmptyMatchNeverFollowsUponAMatch) {
  EXPECT_THAT(split(split_step("Isolated", false, R"({"Regex":"x*"})"), "axxb"),
              ElementsAre("a", "xx", "b"));
}

TEST(PreTokenizer, KnowsTheGpt2PatternWhenItIsSpelledOut) {
  json::value step = {{"type", "Split"},
                      {"pattern", {{"Regex", kGpt2Pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const json::value raw = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const json::value both = {{"type", "Sequence"}, {"pretokenizers", json::array{step, raw}}};
  const auto pre_tokenizer = PreTokenizer::from_json(both, "test");
  ASSERT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.error().message;
  EXPECT_TRUE(pre_tokenizer->is_plain_gpt2());
}

TEST(Gpt2Scanner, CutsLikeThePattern) {
  const auto pieces = [](std::string_view text) {
    std::vector<std::string> result;
    while (!text.empty()) {
      const std::size_t length = gpt2_piece_length(text);
      result.emplace_back(text.substr(0, length));
      text.remove_prefix(length);
    }
    return result;
  };
  EXPECT_THAT(pieces("I'll don't ''s"), ElementsAre("I", "'ll", " don", "'t", " ''", "s"));
  EXPECT_THAT(pieces("a  b\n\n c  "), ElementsAre("a", " ", " b", "\n\n", " c", "  "));
  EXPECT_THAT(pieces("x\u3000y\u00b212 7%"),
              ElementsAre("x", "\u3000", "y", "\u00b212", " 7", "%"));
  EXPECT_THAT(pieces("'l 'S"), ElementsAre("'", "l", " '", "S"));
}

// Two implementations of one pattern, the scanner and the regular expression.
TEST(Gpt2Scanner, AgreesWithTheRegularExpression) {
  const auto regex = Regex::compile(kGpt2Pattern, "test");
  ASSERT_TRUE(regex.ok()) << regex.error().message;
  const std::vector<std::string> parts = {" ",          "  ",     "'",  "s",  "ll",     "a",
                                          "Z",          "1",      "\n", "\t", "\u00e9", "\u3000",
                                          "\U0001f600", "\u0e31", "-",  "'re"};
  std::mt19937 random(5);
  for (int round = 0; round < 5000; ++round) {
    std::string text;
    for (int i = 0; i < 12; ++i) text += parts[random() % parts.size()];
    Regex::Searcher searcher(*regex, text);
    std::string_view rest = text;
    for (Regex::Match match; searcher.next(match);) {
      ASSERT_EQ(gpt2_piece_length(rest), match.end - match.begin) << text;
      rest.remove_prefix(match.end - match.begin);
    }
    ASSERT_TRUE(rest.empty());
  }
}

TEST(RegexSyntax, DrawsSetsAsOnigurumaDoes) {
  const auto matches = [](std::string_view pattern, std::string_view text) {
    const auto regex = Regex::compile(pattern, "test");
    EXPECT_TRUE(regex.ok()) << regex.error().message;
    Regex::Searcher searcher(*regex, text);
    Regex::Match match;
    return searcher.next(match) && match.begin == 0 && match.end == text.size();
  };
  EXPECT_FALSE(matches(R"(\s)", "\u180e"));
  EXPECT_TRUE(matches(R"(\s)", "\u0085"));
  EXPECT_TRUE(matches(R"([\s-x]+)", "-\u2028x"));
  EXPECT_TRUE(matches(R"([\p{L}-\d-]+)", "a-1"));
  EXPECT_TRUE(matches(R"([^\S\n]+)", " \t"));
  EXPECT_FALSE(matches(R"([^\S\n])", "\n"));
  EXPECT_TRUE(matches(R"(\w+)", "a\u0301_1"));
  EXPECT_TRUE(matches(R"(\W)", "-"));
  EXPECT_TRUE(matches(R"(\u0041{,2}\v)", "AA\x0b"));
  EXPECT_TRUE(matches(R"(a{)", "a{"));
  EXPECT_TRUE(matches(R"((?i:'ll)[^\r\n\p{L}]?+\p{L}++)", "'LL abc"));
  EXPECT_FALSE(matches(R"(.)", "\n"));
}

TEST(RegexSyntax, RefusesWhatMeansSomethingElse) {
  for (const char* pattern : {R"(\h)", R"(\R)", R"(\b)", R"(\1)", R"(\K)", R"([\W])", R"([a[b]])",
                              R"([a&&b])", R"((?m).)", R"(a(?i)b)", R"((*FAIL))", R"(a{1,2}+)",
                              R"(a{2}?)", R"(\pL)", R"(\u12)", "\\"}) {
    const auto regex = Regex::compile(pattern, "tokenizer.json");
    ASSERT_FALSE(regex.ok()) << pattern;
    EXPECT_EQ(regex.error().code, ErrorCode::kUnsupported) << pattern;
    EXPECT_THAT(regex.error().message, HasSubstr("not supported"));
  }
}

TEST(Regex, LeavesTextUnmatchedInsteadOfRunningForHours) {
  const auto regex = Regex::compile(R"((a|aa)+$b)", "test");
  ASSERT_TRUE(regex.ok());
  const std::string text(60, 'a');
  Regex::Searcher searcher(*regex, text);
  Regex::Match match;
  EXPECT_FALSE(searcher.next(match));
}

TEST(Utf8, ReplacesMaximalInvalidSubsequences) {
  const auto repaired = [](std::string_view bytes) {
    std::string text;
    EXPECT_EQ(append_lossy_utf8(bytes, Utf8End::kComplete, text), bytes.size());
    EXPECT_EQ(is_valid_utf8(bytes), text == bytes);
    EXPECT_TRUE(is_valid_utf8(text));
    return text;
  };
  EXPECT_EQ(repaired("a\u00e9\u20ac\U0001f600"), "a\u00e9\u20ac\U0001f600");
  EXPECT_EQ(repaired("\x80"), "\ufffd");
  EXPECT_EQ(repaired("\xc0\xaf"), "\ufffd\ufffd");
  EXPECT_EQ(repaired("\xe2\x82z"), "\ufffdz");
  EXPECT_EQ(repaired("\xed\xa0\x80"), "\ufffd\ufffd\ufffd");
  EXPECT_EQ(repaired("\xf0\x9f\x98"), "\ufffd");
  EXPECT_EQ(repaired("\xf0\x80\x80"), "\ufffd\ufffd\ufffd");
  EXPECT_EQ(repaired("\xf4\x90\x80\x80"), "\ufffd\ufffd\ufffd\ufffd");
  EXPECT_EQ(repaired("\xf5"), "\ufffd");
}

TEST(Utf8, LeavesAnUnfinishedCharacterForLater) {
  std::string text;
  EXPECT_EQ(append_lossy_utf8("a\xf0\x9f\x98", Utf8End::kMore, text), 1u);
  EXPECT_EQ(text, "a");
  EXPECT_EQ(append_lossy_utf8("\xe2\x28", Utf8End::kMore, text), 2u);
  EXPECT_EQ(text, "a\ufffd(");
}

TEST(Utf8, CodePointsSurviveTheRoundTrip) {
  for (const std::uint32_t c : {0x0u, 0x7fu, 0x80u, 0x7ffu, 0x800u, 0xffffu, 0x10000u, 0x10ffffu}) {
    std::string text;
    append_utf8(c, text);
    EXPECT_EQ(decode_utf8_char(text).code_point, c);
    EXPECT_EQ(decode_utf8_char(text).length, text.size());
  }
}

}  // namespace
}  // namespace fovea
