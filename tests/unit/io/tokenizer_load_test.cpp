#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/tokenizer.h"
#include "io/tokenizer_spec.h"
#include "temp_folder.h"
#include "tokenizer_json_builder.h"

namespace fovea {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Error parse_error(std::string_view text) {
  const auto tokenizer = Tokenizer::parse_json(text, "tokenizer.json");
  return tokenizer.ok() ? Error{ErrorCode::kInternal, "no error"} : tokenizer.error();
}

Error load_error(const std::filesystem::path& path) {
  const auto tokenizer = Tokenizer::load(path);
  return tokenizer.ok() ? Error{ErrorCode::kInternal, "no error"} : tokenizer.error();
}

TEST(TokenizerJsonFile, SaysWhenItIsSomethingElse) {
  EXPECT_THAT(parse_error("{").message, HasSubstr("tokenizer.json is not valid JSON"));
  EXPECT_THAT(parse_error("[]").message, HasSubstr("not a tokenizer.json"));
  EXPECT_THAT(parse_error(R"({"model":{"type":"Unigram"}})").message, HasSubstr("only BPE"));
}

TEST(TokenizerJsonFile, RefusesWhatWouldChangeIds) {
  const struct {
    TokenizerJson json;
    const char* part;
  } cases[] = {
      {{.normalizer = R"({"type":"Lowercase"})"}, "the normalizer Lowercase"},
      {{.normalizer = R"({"type":"Sequence","normalizers":[{"type":"NFKC"}]})"},
       "the normalizer NFKC"},
      {{.pre_tokenizer = "null"}, "pre_tokenizer"},
      {{.pre_tokenizer = R"({"type":"Metaspace"})"}, "the pre_tokenizer Metaspace"},
      {{.pre_tokenizer = R"({"type":"WhitespaceSplit"})"}, "does not end with ByteLevel"},
      {{.pre_tokenizer =
            R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]})"},
       "Digits follows ByteLevel"},
      {{.post_processor =
            R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"a","type_id":0}},)"
            R"({"Sequence":{"id":"A","type_id":0}}]})"},
       "adds ids to every text"},
      {{.post_processor = R"({"type":"BertProcessing"})"}, "BertProcessing adds ids"},
      {{.decoder = "null"}, "decoder is missing"},
      {{.decoder = R"({"type":"WordPiece"})"}, "decoder is WordPiece"},
      {{.options = R"(,"byte_fallback":true)"}, "byte_fallback"},
      {{.options = R"(,"dropout":0.1)"}, "dropout"},
      {{.options = R"(,"continuing_subword_prefix":"##")"}, "continuing_subword_prefix"},
      {{.options = R"(,"end_of_word_suffix":"</w>")"}, "end_of_word_suffix"},
      {{.added = "[" + added_token(9, "x", false, R"(,"single_word":true)") + "]"}, "single_word"},
      {{.added = "[" + added_token(0, "a", true) + "]"}, "only token of a byte"},
  };
  for (const auto& [json, part] : cases) {
    const Error error = parse_error(json.text());
    EXPECT_THAT(error.message, HasSubstr(part));
    EXPECT_TRUE(error.code == ErrorCode::kUnsupported || std::string(part) == "pre_tokenizer")
        << part;
  }
}

TEST(TokenizerJsonFile, ToleratesPartsThatChangeNothing) {
  const TokenizerJson cases[] = {
      {.normalizer = R"({"type":"Sequence","normalizers":[]})"},
      {.post_processor = R"({"type":"ByteLevel","trim_offsets":false})"},
      {.post_processor =
           R"({"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}}]})"},
      {.post_processor = R"({"type":"Sequence","processors":[{"type":"ByteLevel"}]})"},
      {.decoder = R"({"type":"Sequence","decoders":[{"type":"ByteLevel"}]})"},
      {.options = R"(,"dropout":null,"continuing_subword_prefix":"","end_of_word_suffix":null)"},
      {.added = "[" + added_token(9, "", false) + "]"},
  };
  for (const TokenizerJson& json : cases) {
    const auto tokenizer = Tokenizer::parse_json(json.text(), "tokenizer.json");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
    EXPECT_THAT(tokenizer->encode("abc"), ElementsAre(TokenId(5)));
  }
}

TEST(TokenizerJsonFile, NamesMalformedParts) {
  const struct {
    TokenizerJson json;
    const char* part;
  } cases[] = {
      {{.added = "{}"}, "\"added_tokens\" is not an array"},
      {{.added = "[1]"}, "an added token is not an object"},
      {{.added = R"([{"id":7}])"}, "no content"},
      {{.added = R"([{"id":7,"content":")" + std::string(2000, 'x') + R"("}])"},
       "at most 1024 bytes"},
      {{.added = "[" + added_token(-1, "x", true) + "]"}, "\"x\" has the id -1"},
      {{.added = "[" + added_token(7, "x", true) + "," + added_token(8, "x", true) + "]"},
       "\"x\" comes twice"},
      {{.added = "[" + added_token(7, "abc", false) + "]"},
       "\"abc\" has the id 5 in the vocabulary and 7"},
      {{.added = "[" + added_token(5, "x", false) + "]"}, "two tokens have the id 5"},
      {{.vocab = R"({"a":0,"b":0})", .merges = "[]"}, "two tokens have the id 0"},
      {{.vocab = R"({"a":4194304})", .merges = "[]"},
       "\"a\" has the id 4194304; wanted 0..4194303"},
      {{.vocab = R"({"a":1.5})", .merges = "[]"}, "\"a\" has the id"},
      {{.vocab = "[]"}, "no object \"vocab\""},
      {{.vocab = "{}", .merges = "[]"}, "vocabulary is empty"},
      {{.merges = "{}"}, "no array \"merges\""},
      {{.merges = R"(["ab"])"}, "merge 0 is neither"},
      {{.merges = R"(["a b c"])"}, "merge 0 is neither"},
      {{.merges = R"([["a","b"],["a"]])"}, "merge 1 is neither"},
      {{.merges = R"([["a","x"]])"}, "\"x\" is not in the vocabulary"},
      {{.merges = R"([["a","c"]])"}, "\"ac\" is not in the vocabulary"},
      {{.pre_tokenizer = "{}"}, "has no type"},
      {{.pre_tokenizer = R"({"type":"Sequence"})"}, "pretokenizers"},
      {{.pre_tokenizer = R"({"type":"ByteLevel","use_regex":1})"}, "not a boolean"},
      {{.pre_tokenizer = R"({"type":"Split","pattern":{"Regex":"a"},"behavior":"Sideways"})"},
       "known \"behavior\""},
      {{.pre_tokenizer = R"({"type":"Split","pattern":{},"behavior":"Isolated"})"},
       "neither a Regex nor a String"},
      {{.pre_tokenizer = R"({"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"})"},
       "(a is malformed"},
      {{.pre_tokenizer = R"({"type":"Digits","individual_digits":3})"}, "individual_digits"},
  };
  for (const auto& [json, part] : cases)
    EXPECT_THAT(parse_error(json.text()).message, HasSubstr(part));
}

TEST(TokenizerFiles, LoadsAFolderOrTheFileInIt) {
  const TempFolder folder;
  folder.write("tokenizer.json", TokenizerJson{}.text());
  for (const auto& path : {folder.path(), folder.path() / "tokenizer.json"}) {
    const auto tokenizer = Tokenizer::load(path);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
    EXPECT_EQ(tokenizer->size(), 7);
  }
}

TEST(TokenizerFiles, NamesWhatIsMissing) {
  const TempFolder folder;
  EXPECT_EQ(load_error("/nonexistent").code, ErrorCode::kNotFound);
  EXPECT_EQ(load_error(folder.path()).code, ErrorCode::kNotFound);
  EXPECT_THAT(load_error(folder.path()).message, HasSubstr("no tokenizer.json"));
  folder.write("a.tiktoken", "");
  folder.write("b.tiktoken", "");
  EXPECT_THAT(load_error(folder.path()).message, HasSubstr("(a.tiktoken, b.tiktoken, ...)"));
}

TEST(VocabAndMerges, LoadsThePair) {
  const TempFolder folder;
  folder.write("vocab.json", R"({"a":0,"b":1,"ab":2,"<|endoftext|>":3})");
  folder.write("merges.txt", "#version: 0.2\r\na b\r\n\n");
  folder.write("added_tokens.json", R"({"  ":4,"<|endoftext|>":3})");
  for (const auto& path :
       {folder.path(), folder.path() / "vocab.json", folder.path() / "merges.txt"}) {
    const auto tokenizer = Tokenizer::load(path);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
    EXPECT_EQ(tokenizer->size(), 5);
    EXPECT_TRUE(tokenizer->is_special(TokenId(3)));
    EXPECT_THAT(tokenizer->encode("ab  a"), ElementsAre(TokenId(2), TokenId(4), TokenId(0)));
  }
}

TEST(VocabAndMerges, NamesMistakes) {
  const TempFolder folder;
  const auto vocab = folder.write("vocab.json", R"({"a":0,"b":1})");
  EXPECT_EQ(load_error(vocab).code, ErrorCode::kNotFound);
  folder.write("merges.txt", "a b c\n");
  EXPECT_THAT(load_error(vocab).message, HasSubstr("merges.txt: line 1 is not two tokens"));
  folder.write("merges.txt", "a b\n");
  EXPECT_THAT(load_error(vocab).message, HasSubstr("\"ab\" is not in the vocabulary"));
  folder.write("merges.txt", "\xff \xff\n");
  EXPECT_THAT(load_error(vocab).message, HasSubstr("not UTF-8"));
  folder.write("merges.txt", "");
  folder.write("added_tokens.json", R"({"x":-1})");
  EXPECT_THAT(load_error(vocab).message, HasSubstr("\"x\" has no id"));
  folder.write("vocab.json", "[]");
  EXPECT_THAT(load_error(vocab).message, HasSubstr("not an object"));
}

TEST(Tiktoken, MergesByRankOfTheResult) {
  const TempFolder folder;
  // a, b, c, bc, ab, abc
  const auto path = folder.write("x.tiktoken", "YQ== 0\nYg== 1\nYw== 2\nYmM= 3\nYWI= 4\nYWJj 5\n");
  const auto tokenizer = Tokenizer::load(path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_THAT(tokenizer->encode("abc"), ElementsAre(TokenId(5)));
  EXPECT_THAT(tokenizer->encode("abab"), ElementsAre(TokenId(4), TokenId(4)));
  EXPECT_THAT(tokenizer->encode("bca"), ElementsAre(TokenId(3), TokenId(0)));
  EXPECT_EQ(tokenizer->size(), 6);
}

TEST(Tiktoken, AVocabularyOfTheSizeOfGpt2HasItsEnd) {
  std::string text;
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (unsigned i = 0; i < 50'256; ++i) {
    for (const unsigned shift : {18u, 12u, 6u, 0u}) text += kDigits[i >> shift & 63u];
    text += " " + std::to_string(i) + "\n";
  }
  auto spec = parse_tiktoken(text, "gpt2.tiktoken");
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  const auto tokenizer = Tokenizer::build(std::move(spec).value(), "gpt2.tiktoken");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->size(), 50'257);
  EXPECT_EQ(tokenizer->find_special("<|endoftext|>"), TokenId(50'256));
}

TEST(Tiktoken, NamesTheLineOfAMistake) {
  for (const char* line :
       {"YQ==", "YQ== x", "YQ== -1", "YQ== 4194304", "Y!== 1", "YQ= 1", " 1", "YQ== 1 "}) {
    const auto spec = parse_tiktoken(std::string("Yg== 0\n") + line, "x.tiktoken");
    ASSERT_FALSE(spec.ok()) << line;
    EXPECT_THAT(spec.error().message, HasSubstr("x.tiktoken: line 2"));
  }
  const auto doubled = parse_tiktoken("YQ== 0\nYQ== 1\n", "x.tiktoken");
  ASSERT_FALSE(doubled.ok());
  EXPECT_THAT(doubled.error().message, HasSubstr("comes twice"));
}

}  // namespace
}  // namespace fovea
