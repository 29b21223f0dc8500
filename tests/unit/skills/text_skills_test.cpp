#include <gtest/gtest.h>

#include "support/skill_fixture.h"

namespace fovea {
namespace {

using testing_support::ids_of;
using Slot = TokenRule::Slot;

class TextSkills : public testing_support::SkillFixture {
 protected:
  std::string feed(SkillState& state, std::string_view letters) {
    std::string streamed;
    for (const char c : letters) {
      EXPECT_EQ(state.consume(letter(c)), Progress::kContinue);
      streamed += state.take_text();
    }
    return streamed;
  }
  static Response finish(SkillState& state) {
    Response response;
    state.finish(response);
    return response;
  }
};

TEST_F(TextSkills, CaptionSuppressesTheAnswerTokenOfMoondream2Only) {
  EXPECT_EQ(ids_of(must_make({.skill = CaptionRequest{}})->next_rule().suppressed),
            std::vector<int>{3});
  use_family(true);
  EXPECT_TRUE(must_make({.skill = CaptionRequest{}})->next_rule().suppressed.empty());
}

TEST_F(TextSkills, CaptionOfALengthThatTheModelLacksIsRefused) {
  const auto state = make({.skill = CaptionRequest{CaptionLength::kLong}});
  ASSERT_FALSE(state.ok());
  EXPECT_EQ(state.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(state.error().message.find("long"), std::string::npos);
}

TEST_F(TextSkills, CaptionStreamsAndStopsAtTheEnd) {
  const auto state = must_make({.skill = CaptionRequest{}});
  EXPECT_EQ(feed(*state, "a cat"), "a cat");
  EXPECT_EQ(state->consume(word(0)), Progress::kStop);
  EXPECT_EQ(finish(*state).text, "a cat");
}

TEST_F(TextSkills, CoordinatesInsideTextLeaveNoMark) {
  const auto state = must_make({.skill = CaptionRequest{}});
  EXPECT_EQ(state->next_rule().slot, Slot::kById);
  feed(*state, "ab");
  EXPECT_EQ(state->consume(coord(0.5f)), Progress::kContinue);
  feed(*state, "c");
  EXPECT_EQ(finish(*state).text, "abc");
  compatibility_.embed_text_coordinates = false;
  EXPECT_EQ(must_make({.skill = CaptionRequest{}})->next_rule().slot, Slot::kNever);
}

TEST_F(TextSkills, QueryPromptsOfBothFamilies) {
  EXPECT_EQ(ids_of(must_make({.skill = QueryRequest{" ab ", {}, {}}})->prompt()),
            (std::vector<int>{1, 2, 10, 11, 3, 3}));
  EXPECT_EQ(ids_of(must_make({.skill = QueryRequest{"ab", true, {}}})->prompt()),
            (std::vector<int>{1, 2, 10, 11, 3, 4}));
  use_family(true);
  EXPECT_EQ(ids_of(must_make({.skill = QueryRequest{"ab", false, {}}})->prompt()),
            (std::vector<int>{1, 2, 10, 11, 3}));
  EXPECT_EQ(ids_of(must_make({.skill = QueryRequest{"ab", {}, {}}})->prompt()),
            (std::vector<int>{1, 2, 10, 11, 4}));
}

TEST_F(TextSkills, ReasoningGroundsStretchesOfItsText) {
  const auto state = must_make({.skill = QueryRequest{"a", true, {}}});
  EXPECT_EQ(ids_of(state->next_rule().suppressed), (std::vector<int>{0, 6}));
  feed(*state, "ab");
  EXPECT_EQ(state->consume(word(7)), Progress::kContinue);  // the stretch "ab" has no points
  feed(*state, "cat");
  for (const SampledToken& token : {coord(0.25f), coord(0.5f), coord(0.75f)}) {
    EXPECT_EQ(state->consume(token), Progress::kContinue);  // the last x has no y
  }
  EXPECT_EQ(state->consume(word(9)), Progress::kContinue);
  feed(*state, " d");
  EXPECT_EQ(state->take_text(), "");  // reasoning is not streamed
  EXPECT_EQ(state->consume(word(3)), Progress::kContinue);
  EXPECT_EQ(ids_of(state->next_rule().allowed), std::vector<int>{3});  // forced
  EXPECT_EQ(state->consume(word(3)), Progress::kContinue);
  EXPECT_EQ(ids_of(state->next_rule().suppressed), std::vector<int>{3});
  EXPECT_EQ(feed(*state, "yes"), "yes");
  EXPECT_EQ(state->consume(word(0)), Progress::kStop);
  const Response response = finish(*state);
  EXPECT_EQ(response.text, "yes");
  ASSERT_TRUE(response.reasoning.has_value());
  EXPECT_EQ(response.reasoning->text, "abcat d");
  ASSERT_EQ(response.reasoning->grounding.size(), 1u);
  EXPECT_EQ(response.reasoning->grounding[0].start_idx, 2);
  EXPECT_EQ(response.reasoning->grounding[0].end_idx, 5);
  ASSERT_EQ(response.reasoning->grounding[0].points.size(), 1u);
  EXPECT_EQ(response.reasoning->grounding[0].points[0].x, 0.25);
  EXPECT_EQ(response.reasoning->grounding[0].points[0].y, 0.5);
}

TEST_F(TextSkills, Moondream3GoesStraightToTheAnswer) {
  use_family(true);
  const auto state = must_make({.skill = QueryRequest{"a", true, {}}});
  EXPECT_TRUE(state->next_rule().suppressed.empty());
  feed(*state, "ab");
  EXPECT_EQ(state->consume(word(3)), Progress::kContinue);
  EXPECT_TRUE(state->next_rule().allowed.empty());
  EXPECT_EQ(feed(*state, "c"), "c");
}

TEST_F(TextSkills, ASingleAnswerTokenOnRequest) {
  compatibility_.repeat_answer_token = false;
  const auto state = must_make({.skill = QueryRequest{"a", true, {}}});
  EXPECT_EQ(state->consume(word(3)), Progress::kContinue);
  EXPECT_TRUE(state->next_rule().allowed.empty());
}

TEST_F(TextSkills, SeparateBudgetsGoOnToTheAnswer) {
  compatibility_.separate_reasoning_budget = true;
  Request request{.skill = QueryRequest{"a", true, {}}};
  request.sampling.max_tokens = 2;
  const auto state = must_make(std::move(request));
  feed(*state, "ab");
  EXPECT_EQ(ids_of(state->next_rule().allowed), std::vector<int>{3});
  EXPECT_EQ(state->consume(word(3)), Progress::kContinue);
  EXPECT_EQ(state->consume(word(3)), Progress::kContinue);
  EXPECT_EQ(state->consume(letter('c')), Progress::kContinue);
  EXPECT_EQ(state->consume(letter('d')), Progress::kLength);
}

TEST_F(TextSkills, AModelThatCannotReasonSaysSo) {
  prompts_.thinking.reset();
  derive_decoding_rules(prompts_.query->suffix, false, prompts_);
  const auto state = make({.skill = QueryRequest{"a", true, {}}});
  ASSERT_FALSE(state.ok());
  EXPECT_EQ(state.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace fovea
