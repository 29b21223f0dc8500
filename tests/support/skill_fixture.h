#pragma once

#include <gtest/gtest.h>

#include "io/tokenizer.h"
#include "model/families.h"
#include "skills/registry.h"

namespace fovea::testing_support {

/// A tokenizer of single bytes: ids 0..9 are control tokens, letter c is 10 + (c - 'a'), the
/// space 36.
inline Tokenizer letter_tokenizer() {
  std::string vocab, added;
  for (int id = 0; id < 10; ++id) {
    const std::string name = "<" + std::to_string(id) + ">";
    added +=
        (id == 0 ? "" : ",") + std::string(R"({"id":)") + std::to_string(id) + R"(,"content":")" +
        name +
        R"(","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false})";
    vocab += (id == 0 ? "\"" : ",\"") + name + "\":" + std::to_string(id);
  }
  for (char c = 'a'; c <= 'z'; ++c)
    vocab += ",\"" + std::string(1, c) + "\":" + std::to_string(10 + c - 'a');
  vocab += ",\"\u0120\":36";  // the space, as byte-level vocabularies spell it
  auto tokenizer = Tokenizer::parse_json(
      R"({"added_tokens":[)" + added +
          R"(],"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},)"
          R"("decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},)"
          R"("model":{"type":"BPE","vocab":{)" +
          vocab + R"(},"merges":[]}})",
      "letters");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  return std::move(tokenizer).value();
}

/// Skills over the letter tokenizer, with the control ids of the published vocabularies.
class SkillFixture : public testing::Test {
 protected:
  void use_family(bool moondream3) {
    prompts_ = PromptConfig{};
    prompts_.bos = prompts_.eos = TokenId{0};
    prompts_.answer = TokenId{3};
    prompts_.thinking = TokenId{4};
    prompts_.coord = TokenId{5};
    prompts_.size = TokenId{6};
    prompts_.start_ground_points = TokenId{7};
    prompts_.end_ground = TokenId{9};
    prompts_.caption_short =
        prompts_.caption_normal = {TokenId{1}, TokenId{12}, TokenId{2}, TokenId{3}};
    prompts_.query = PromptTemplate{{TokenId{1}, TokenId{2}}, {TokenId{3}}};
    prompts_.detect = prompts_.point = PromptTemplate{{TokenId{1}, TokenId{2}}, {TokenId{3}}};
    derive_decoding_rules(prompts_.query->suffix, moondream3, prompts_);
  }
  void SetUp() override { use_family(false); }

  Result<std::unique_ptr<SkillState>> make(Request request, bool with_picture = true) {
    if (with_picture) request.picture = Image{1, 1, {0, 0, 0}};
    return skills::make_factory({prompts_, tokenizer_, compatibility_})(request);
  }
  std::unique_ptr<SkillState> must_make(Request request) {
    auto state = make(std::move(request));
    EXPECT_TRUE(state.ok()) << state.error().message;
    return std::move(state).value();
  }

  static SampledToken word(int id) { return {Token::text(TokenId{id}), 0.0f, 1.0f}; }
  static SampledToken letter(char c) { return word(c == ' ' ? 36 : 10 + c - 'a'); }
  static SampledToken coord(float value, float localisation = 1.0f, float logprob = 0.0f) {
    return {Token::coord(TokenId{5}, value), logprob, localisation};
  }
  static SampledToken size(float width, float height, float localisation = 1.0f) {
    return {Token::size(TokenId{6}, width, height), 0.0f, localisation};
  }

  Tokenizer tokenizer_ = letter_tokenizer();
  PromptConfig prompts_;
  Compatibility compatibility_;
};

/// Token ids of a span, for comparisons.
template <class Tokens>
std::vector<int> ids_of(const Tokens& tokens) {
  std::vector<int> ids;
  for (const auto& token : tokens) {
    if constexpr (requires { token.id; }) {
      ids.push_back(token.id.value());
    } else {
      ids.push_back(token.value());
    }
  }
  return ids;
}

}  // namespace fovea::testing_support
