#include "io/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "tokenizer_json_builder.h"

namespace fovea {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Tokenizer make(const TokenizerJson& json) {
  auto tokenizer = Tokenizer::parse_json(json.text(), "tokenizer.json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  return std::move(tokenizer).value();
}

std::vector<int> values(const std::vector<TokenId>& ids) {
  std::vector<int> result;
  for (const TokenId id : ids) result.push_back(id.value());
  return result;
}

std::vector<int> encode(const TokenizerJson& json, std::string_view text) {
  return values(make(json).encode(text));
}

std::string decode(const Tokenizer& tokenizer, std::initializer_list<int> ids) {
  std::vector<TokenId> tokens;
  for (const int id : ids) tokens.emplace_back(id);
  return tokenizer.decode(tokens);
}

TEST(Tokenizer, MergesTheLowestRankFirstAndTheLeftmostOnTies) {
  EXPECT_THAT(encode({}, "abc"), ElementsAre(5));
  EXPECT_THAT(encode({}, "aab"), ElementsAre(0, 4));
  EXPECT_THAT(encode({.vocab = R"({"a":0,"aa":1})", .merges = R"([["a","a"]])"}, "aaa"),
              ElementsAre(1, 0));
  // "b c" is the older merge: "ab" can no longer come to be.
  EXPECT_THAT(encode({.vocab = R"({"a":0,"b":1,"c":2,"ab":3,"bc":4})",
                      .merges = R"([["b","c"],["a","b"]])"},
                     "abc"),
              ElementsAre(0, 4));
}

TEST(Tokenizer, ReadsMergesAsStrings) {
  EXPECT_THAT(encode({.merges = R"(["#version: 0.2","a b","ab c","\u0120 a"])"}, "abc a"),
              ElementsAre(5, 6));
}

TEST(Tokenizer, GivesNothingForAnEmptyText) { EXPECT_THAT(encode({}, ""), IsEmpty()); }

TEST(Tokenizer, DropsBytesThatAreNoToken) {
  EXPECT_THAT(encode({}, "bxa"), ElementsAre(1, 0));
  EXPECT_THAT(encode({}, "axb"), ElementsAre(4));  // what is left merges, as in the reference
}

TEST(Tokenizer, GivesTheUnknownTokenForOtherBytes) {
  const std::string vocab = R"({"a":0,"b":1,"?":2})";
  const TokenizerJson json{.vocab = vocab, .merges = "[]", .options = R"(,"unk_token":"?")"};
  EXPECT_THAT(encode(json, "axyb"), ElementsAre(0, 2, 2, 1));
  TokenizerJson fused = json;
  fused.options += R"(,"fuse_unk":true)";
  EXPECT_THAT(encode(fused, "axyb"), ElementsAre(0, 2, 1));
}

TEST(Tokenizer, IgnoresMergesForWholePiecesWhenAsked) {
  const TokenizerJson json{.vocab = R"({"a":0,"b":1,"ab":2})", .merges = "[]"};
  EXPECT_THAT(encode(json, "ab"), ElementsAre(0, 1));
  TokenizerJson ignoring = json;
  ignoring.options = R"(,"ignore_merges":true)";
  EXPECT_THAT(encode(ignoring, "ab"), ElementsAre(2));
}

TEST(Tokenizer, CountsIdsBeyondTheVocabulary) {
  const Tokenizer tokenizer = make({.added = "[" + added_token(9, "<x>", true) + "]"});
  EXPECT_EQ(tokenizer.size(), 10);
  EXPECT_EQ(tokenizer.token_bytes(TokenId(8)), "");
  EXPECT_FALSE(tokenizer.is_special(TokenId(8)));
  EXPECT_TRUE(tokenizer.is_special(TokenId(9)));
  EXPECT_EQ(decode(tokenizer, {0, 8, 9, 10, -1, 1}), "ab");
}

TEST(Tokenizer, SpecialSpellingsInATextArePlainText) {
  // "abc" is special here, and merges as well as ignore_merges would lead to it.
  for (const char* options : {"", R"(,"ignore_merges":true)"}) {
    const TokenizerJson json{.added = "[" + added_token(5, "abc", true) + "]", .options = options};
    const Tokenizer tokenizer = make(json);
    EXPECT_THAT(values(tokenizer.encode("abc")), ElementsAre(4, 2));
    EXPECT_EQ(decode(tokenizer, {5, 0}), "a");
    EXPECT_FALSE(tokenizer.find("abc").has_value());
    EXPECT_EQ(tokenizer.find_special("abc"), TokenId(5));
  }
}

TEST(Tokenizer, ASpecialUnknownTokenIsNotReachedByText) {
  EXPECT_THAT(encode({.added = "[" + added_token(7, "<unk>", true) + "]",
                      .vocab = R"({"a":0,"<unk>":7})",
                      .merges = "[]",
                      .options = R"(,"unk_token":"<unk>")"},
                     "a\xe2\x82\xac"),
              ElementsAre(0));
}

TEST(Tokenizer, FindsAddedTokensLeftmostLongest) {
  const TokenizerJson json{.added = "[" + added_token(10, "ab", false) + "," +
                                    added_token(11, "abca", false) + "," +
                                    added_token(12, "bc", false) + "]",
                           .vocab = R"({"a":0,"b":1,"c":2})",
                           .merges = "[]"};
  EXPECT_THAT(encode(json, "cabcabc"), ElementsAre(2, 11, 12));
  const Tokenizer tokenizer = make(json);
  EXPECT_EQ(decode(tokenizer, {2, 11, 12}), "cabcabc");
  EXPECT_EQ(tokenizer.find("abca"), TokenId(11));
  EXPECT_FALSE(tokenizer.is_special(TokenId(11)));
}

TEST(Tokenizer, ASpecialSpellingCoversAnAddedTokenInsideIt) {
  const std::string added =
      "[" + added_token(10, "bca", true) + "," + added_token(11, "c", false) + "]";
  EXPECT_THAT(encode({.added = added, .vocab = R"({"a":0,"b":1,"c":11})", .merges = "[]"}, "cbca"),
              ElementsAre(11, 1, 11, 0));
  // The second 11 is the byte "c" merged as text; an added token that is no byte shows the
  // difference.
  const std::string pair =
      "[" + added_token(10, "bca", true) + "," + added_token(11, "ca", false) + "]";
  EXPECT_THAT(encode({.added = pair, .vocab = R"({"a":0,"b":1,"c":2})", .merges = "[]"}, "cabca"),
              ElementsAre(11, 1, 2, 0));
}

TEST(Tokenizer, SearchesNormalizedAddedTokensAfterTheOthers) {
  const std::string added = "[" + added_token(10, "ab", false, R"(,"normalized":true)") + "," +
                            added_token(11, "bc", false, R"(,"normalized":false)") + "]";
  EXPECT_THAT(encode({.added = added, .vocab = R"({"a":0,"b":1,"c":2})", .merges = "[]"}, "abcab"),
              ElementsAre(0, 11, 10));
}

TEST(Tokenizer, AddedTokensTakeWhiteSpaceAlongWhenAsked) {
  const std::string vocab = R"({"a":0,"b":1,"\u0120":2})";
  const auto json = [&vocab](const char* option) {
    return TokenizerJson{
        .added = "[" + added_token(10, "b", false, option) + "]", .vocab = vocab, .merges = "[]"};
  };
  EXPECT_THAT(
      encode({.added = "[" + added_token(1, "b", false) + "]", .vocab = vocab, .merges = "[]"},
             "a b a"),
      ElementsAre(0, 2, 1, 2, 0));
  TokenizerJson left = json(R"(,"lstrip":true)");
  left.vocab = R"({"a":0,"\u0120":2})";
  EXPECT_THAT(encode(left, "a  b a"), ElementsAre(0, 10, 2, 0));
  TokenizerJson right = json(R"(,"rstrip":true)");
  right.vocab = left.vocab;
  EXPECT_THAT(encode(right, "a b\u3000 a"), ElementsAre(0, 2, 10, 0));
}

TEST(Tokenizer, AddsASpaceBeforeEachStretchWhenAsked) {
  TokenizerJson json;
  json.pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":true,"use_regex":true})";
  EXPECT_THAT(encode(json, "a a"), ElementsAre(6, 6));
  json.added = "[" + added_token(10, "c", false) + "]";
  json.vocab = R"({"a":0,"b":1,"\u0120":3,"\u0120a":6})";
  json.merges = R"([["\u0120","a"]])";
  EXPECT_THAT(encode(json, "aca"), ElementsAre(6, 10, 6));
}

TEST(Tokenizer, RepairsInvalidUtf8BeforeEncoding) {
  // U+FFFD is EF BF BD, spelled "\u00ef\u00bf\u00bd".
  const TokenizerJson json{.vocab = R"({"a":0,"\u00ef":1,"\u00bf":2,"\u00bd":3})", .merges = "[]"};
  EXPECT_THAT(encode(json, "a\xe2\x82"), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(encode(json, "\xc0\xaf"), ElementsAre(1, 2, 3, 1, 2, 3));
}

TEST(Tokenizer, DecodesJoinedBytes) {
  // The euro sign, E2 82 AC, in two tokens.
  const Tokenizer tokenizer =
      make({.vocab = R"({"\u00e2\u0124":0,"\u00ac":1,"a":2,"\u65e5":3})", .merges = "[]"});
  EXPECT_EQ(decode(tokenizer, {0, 1}), "\u20ac");
  EXPECT_EQ(decode(tokenizer, {0, 2}), "\ufffda");
  EXPECT_EQ(decode(tokenizer, {1, 0}), "\ufffd\ufffd");
  EXPECT_EQ(tokenizer.token_bytes(TokenId(0)), "\xe2\x82");
  EXPECT_EQ(decode(tokenizer, {3}), "\u65e5");  // spelled outside the byte alphabet: as it stands
}

TEST(Tokenizer, EncodesALongPieceInGoodTime) {
  TokenizerJson json;
  json.pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false})";
  std::string text;
  for (int i = 0; i < 1'000'000; ++i) text += "abc a"[i % 5];
  const auto ids = make(json).encode(text);
  // "abc a" repeats as abc, " a", and its last "a" merges with nothing of the next "abc".
  ASSERT_EQ(ids.size(), 400'000u);
  EXPECT_EQ(ids[0], TokenId(5));
  EXPECT_EQ(ids[1], TokenId(6));
}

TEST(Tokenizer, LongAndShortPiecesMergeAlike) {
  TokenizerJson json{
      .vocab = R"({"a":0,"b":1,"aa":2,"ab":3,"aab":4,"ba":5,"abba":6,"aaaa":7})",
      .merges = R"([["a","b"],["a","a"],["b","a"],["ab","ba"],["a","ab"],["aa","aa"]])"};
  json.pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false})";
  const Tokenizer tokenizer = make(json);
  // The naive rule: find the lowest rank, merge it, start over.
  const auto naive = [](const std::string& text) {
    const std::vector<std::array<int, 3>> merges = {{0, 1, 3}, {0, 0, 2}, {1, 0, 5},
                                                    {3, 5, 6}, {0, 3, 4}, {2, 2, 7}};
    std::vector<int> ids;
    for (const char c : text) ids.push_back(c - 'a');
    for (bool merged = true; merged;) {
      merged = false;
      for (const auto& [left, right, result] : merges) {
        for (std::size_t i = 0; i + 1 < ids.size() && !merged; ++i) {
          if (ids[i] != left || ids[i + 1] != right) continue;
          ids[i] = result;
          ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(i) + 1);
          merged = true;
        }
        if (merged) break;
      }
    }
    return ids;
  };
  std::mt19937 random(7);
  for (const std::size_t size : {1u, 2u, 5u, 63u, 64u, 65u, 66u, 300u}) {
    for (int round = 0; round < 20; ++round) {
      std::string text;
      for (std::size_t i = 0; i < size; ++i) text += random() % 3 == 0 ? 'b' : 'a';
      EXPECT_EQ(values(tokenizer.encode(text)), naive(text)) << text;
    }
  }
}

TEST(IncrementalDecoder, HoldsAnUnfinishedCharacterBack) {
  const Tokenizer tokenizer =
      make({.vocab = R"({"\u00e2\u0124":0,"\u00ac":1,"a":2})", .merges = "[]"});
  IncrementalDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(TokenId(2)), "a");
  EXPECT_EQ(decoder.push(TokenId(0)), "");
  EXPECT_EQ(decoder.push(TokenId(1)), "\u20ac");
  EXPECT_EQ(decoder.push(TokenId(0)), "");
  EXPECT_EQ(decoder.push(TokenId(2)), "\ufffda");
  EXPECT_EQ(decoder.push(TokenId(0)), "");
  EXPECT_EQ(decoder.finish(), "\ufffd");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(IncrementalDecoder, JoinsToTheWholeDecodeForRandomIds) {
  const auto tokenizer = Tokenizer::load(std::string(FOVEA_TEST_DATA) + "/tokenizer/golden.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::vector<TokenId> ids;
    // Ids of single bytes come often, so that broken and unfinished characters do.
    for (unsigned i = 0; i < 40; ++i)
      ids.emplace_back(static_cast<int>(random() % (i % 2 == 0 ? 266 : 530)));
    IncrementalDecoder decoder(*tokenizer);
    std::string joined;
    for (const TokenId id : ids) joined += decoder.push(id);
    joined += decoder.finish();
    ASSERT_EQ(joined, tokenizer->decode(ids));
  }
}

}  // namespace
}  // namespace fovea
