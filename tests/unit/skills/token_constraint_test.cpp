#include "skills/token_constraint.h"

#include <gtest/gtest.h>
#include <random>
#include <string>

#include "base/json.h"
#include "skills/json_schema.h"
#include "support/byte_tokenizer.h"
#include "support/json_schema_check.h"
#include "support/skill_fixture.h"

namespace fovea::skills {
namespace {

constexpr std::string_view kSchemas[] = {
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":12},"n":{"type":"integer"},)"
    R"("tags":{"type":"array","items":{"enum":["red","rede",3,null]},"minItems":1,"maxItems":4}},)"
    R"("required":["name","tags"],"additionalProperties":false})",
    R"({"type":"number"})",
    R"({"type":"string"})",
    R"({"anyOf":[{"type":"null"},{"type":"array","items":{"$ref":"#"}}]})",
    R"({"$defs":{"t":{"type":"object","properties":{"kind":{"const":"leaf"},"v":{"type":"number"},)"
    R"("l":{"$ref":"#/$defs/t"},"r":{"$ref":"#/$defs/t"}},"required":["kind"]}},"$ref":"#/$defs/t"})",
    R"({"type":["string","integer","null"],"minLength":1,"maxLength":5})",
    R"({"type":"object","properties":{"a":{"type":"boolean"},"b":true,"c":{"type":"string"}}})",
};

class TokenConstraintTest : public testing_support::SkillFixture {
 protected:
  void SetUp() override {
    SkillFixture::SetUp();
    tokenizer_ = testing_support::byte_tokenizer(testing_support::json_words());
    trie_ = std::make_shared<const TokenTrie>(tokenizer_, prompts_);
  }
  TokenConstraint constraint(std::string_view schema) {
    auto grammar = compile_json_schema(schema);
    EXPECT_TRUE(grammar.ok()) << grammar.error().message;
    auto made = TokenConstraint::create(trie_, std::move(grammar).value(), prompts_.eos);
    EXPECT_TRUE(made.ok()) << made.error().message;
    return std::move(made).value();
  }

  // All ids of the vocabulary that a rule lets through.
  std::vector<TokenId> choices(std::span<const TokenId> allowed,
                               std::span<const TokenId> suppressed) const {
    std::vector<TokenId> ids(allowed.begin(), allowed.end());
    if (allowed.empty()) {
      for (std::int32_t id = 0; id < tokenizer_.size(); ++id) ids.emplace_back(id);
    }
    std::erase_if(ids, [&](TokenId id) {
      return std::find(suppressed.begin(), suppressed.end(), id) != suppressed.end();
    });
    return ids;
  }

  std::shared_ptr<const TokenTrie> trie_;
};

TEST_F(TokenConstraintTest, TheChoiceIsWhatTryingEveryTokenAllows) {
  std::mt19937 random(5);
  for (const std::string_view schema : kSchemas) {
    const auto grammar = compile_json_schema(schema);
    ASSERT_TRUE(grammar.ok());
    GrammarAutomaton naive(*grammar);
    TokenConstraint held = constraint(schema);
    std::string text;
    for (int step = 0; step < 40 && !held.is_final(); ++step) {
      std::vector<TokenId> expected;
      for (std::int32_t id = 0; id < tokenizer_.size(); ++id) {
        const std::string_view bytes = tokenizer_.token_bytes(TokenId(id));
        std::int32_t state = naive.start();
        for (const char c : text + std::string(bytes)) {
          if (state != GrammarAutomaton::kDead)
            state = naive.step(state, static_cast<std::uint8_t>(c));
        }
        const bool is_eos = TokenId(id) == prompts_.eos && held.is_complete();
        if (is_eos || (!bytes.empty() && state != GrammarAutomaton::kDead))
          expected.emplace_back(id);
      }
      const TokenConstraint::Choice& next = held.next();
      const auto ids = choices(next.allowed, next.suppressed);
      ASSERT_EQ(ids, expected) << schema << " after " << text;
      EXPECT_TRUE(next.allowed.empty() || next.suppressed.empty());
      TokenId id = ids[random() % ids.size()];
      if (id == prompts_.eos) break;
      text += tokenizer_.token_bytes(id);
      ASSERT_TRUE(held.advance(id));
    }
  }
}

TEST_F(TokenConstraintTest, ListsAreTheShorterOfTheTwo) {
  TokenConstraint held = constraint(R"({"type":"string"})");
  EXPECT_FALSE(held.next().allowed.empty());
  ASSERT_TRUE(held.advance(TokenId{10 + '"'}));
  const auto size = static_cast<std::size_t>(tokenizer_.size());
  EXPECT_LE(held.next().allowed.size() + held.next().suppressed.size(), size / 2 + 1);
}

TEST_F(TokenConstraintTest, AForbiddenTokenChangesNothing) {
  TokenConstraint held = constraint(R"({"type":"integer"})");
  EXPECT_FALSE(held.advance(TokenId{10 + 'x'}));
  EXPECT_FALSE(held.advance(prompts_.eos));
  EXPECT_TRUE(held.advance(TokenId{10 + '1'}));
  EXPECT_TRUE(held.is_complete());
  EXPECT_FALSE(held.is_final());
}

TEST_F(TokenConstraintTest, ManyStatesAreForgottenWithoutLosingThePlace) {
  TokenConstraint held = constraint(R"({"type":"string","maxLength":9000})");
  ASSERT_TRUE(held.advance(TokenId{10 + '"'}));
  for (int i = 0; i < 9000; ++i) ASSERT_TRUE(held.advance(TokenId{10 + 'a'})) << i;
  EXPECT_FALSE(held.advance(TokenId{10 + 'a'}));
  EXPECT_TRUE(held.advance(TokenId{10 + '"'}));
  EXPECT_TRUE(held.is_final());
}

TEST_F(TokenConstraintTest, AVocabularyWithoutBytesIsRefused) {
  tokenizer_ = testing_support::letter_tokenizer();
  const auto state =
      make({.skill = QueryRequest{.question = "a", .json_schema = R"({"type":"null"})"}});
  ASSERT_FALSE(state.ok());
  EXPECT_EQ(state.error().code, ErrorCode::kUnsupported);
}

// ---- through the query skill, as the engine drives it

class JsonQuery : public TokenConstraintTest {
 protected:
  std::unique_ptr<SkillState> ask(std::string_view schema) {
    return must_make(
        {.skill = QueryRequest{
             .question = "a", .reasoning = false, .json_schema = std::string(schema)}});
  }
};

TEST_F(JsonQuery, WhateverTheLogitsAFinishedAnswerMeetsItsSchema) {
  int finished = 0, runs = 0;
  for (const std::string_view schema : kSchemas) {
    const json::value rules = json::parse(schema, "schema").value();
    for (unsigned seed = 0; seed < 40; ++seed) {
      std::mt19937 random(seed);
      // Half of the runs like to end things, so that large answers are finished too.
      const bool likes_ends = seed % 2 == 0;
      const auto state = ask(schema);
      Progress progress = Progress::kContinue;
      for (int i = 0; i < 400 && progress == Progress::kContinue; ++i) {
        const TokenRule rule = state->next_rule();
        EXPECT_EQ(rule.slot, TokenRule::Slot::kNever);
        const auto ids = choices(rule.allowed, rule.suppressed);
        ASSERT_FALSE(ids.empty());
        TokenId id = ids[random() % ids.size()];
        for (const char end : {'"', ']', '}'}) {
          const TokenId closing{10 + end};
          if (likes_ends && random() % 2 == 0 &&
              std::find(ids.begin(), ids.end(), closing) != ids.end())
            id = closing;
        }
        progress = state->consume({Token::text(id), 0.0f, 1.0f});
      }
      ++runs;
      if (progress != Progress::kStop) continue;
      ++finished;
      Response response;
      state->finish(response);
      const auto answer = json::parse(response.text, "answer");
      ASSERT_TRUE(answer.ok()) << answer.error().message << "\n" << response.text;
      EXPECT_TRUE(testing_support::meets_schema(*answer, rules, rules)) << schema << "\n"
                                                                        << response.text;
    }
  }
  EXPECT_GT(finished, runs / 2);
}

TEST_F(JsonQuery, TheAnswerEndsWhenNothingMayFollow) {
  const auto state = ask(R"({"const":"red"})");
  EXPECT_EQ(state->consume(word(10 + '"')), Progress::kContinue);
  EXPECT_EQ(state->consume(word(10 + 'r')), Progress::kContinue);
  EXPECT_EQ(testing_support::ids_of(state->next_rule().allowed), std::vector<int>{10 + 'e'});
  EXPECT_EQ(state->consume(word(10 + 'e')), Progress::kContinue);
  EXPECT_EQ(state->consume(word(10 + 'd')), Progress::kContinue);
  EXPECT_EQ(state->consume(word(10 + '"')), Progress::kStop);
  Response response;
  state->finish(response);
  EXPECT_EQ(response.text, "\"red\"");
}

TEST_F(JsonQuery, ANumberEndsWithTheSequence) {
  const auto state = ask(R"({"type":"integer"})");
  const auto may_end = [&] {
    const TokenRule rule = state->next_rule();
    const auto ids = choices(rule.allowed, rule.suppressed);
    return std::find(ids.begin(), ids.end(), prompts_.eos) != ids.end();
  };
  EXPECT_FALSE(may_end());
  EXPECT_EQ(state->consume(word(10 + '4')), Progress::kContinue);
  EXPECT_TRUE(may_end());
  EXPECT_EQ(state->consume({Token::text(prompts_.eos), 0.0f, 1.0f}), Progress::kStop);
}

TEST_F(JsonQuery, AWrongSchemaIsTheCallersError) {
  const auto state =
      make({.skill = QueryRequest{.question = "a", .json_schema = R"({"type":"date"})"}});
  ASSERT_FALSE(state.ok());
  EXPECT_EQ(state.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(state.error().message.find("json_schema: $.type"), std::string::npos);
}

TEST_F(JsonQuery, ReasoningIsFreeAndTheAnswerIsHeld) {
  const auto state =
      must_make({.skill = QueryRequest{
                     .question = "a", .reasoning = true, .json_schema = R"({"type":"boolean"})"}});
  EXPECT_EQ(state->consume(word(10 + 'x')), Progress::kContinue);
  EXPECT_EQ(state->consume(word(3)), Progress::kContinue);
  EXPECT_EQ(state->consume(word(3)), Progress::kContinue);  // Moondream 2 writes it twice
  EXPECT_FALSE(state->next_rule().allowed.empty());
  for (const char c : std::string_view("tru"))
    EXPECT_EQ(state->consume(word(10 + c)), Progress::kContinue);
  EXPECT_EQ(state->consume(word(10 + 'e')), Progress::kStop);
  Response response;
  state->finish(response);
  EXPECT_EQ(response.text, "true");
  EXPECT_EQ(response.reasoning->text, "x");
}

}  // namespace
}  // namespace fovea::skills
