#include <cmath>
#include <gtest/gtest.h>

#include "support/skill_fixture.h"

namespace fovea {
namespace {

using testing_support::ids_of;
using Slot = TokenRule::Slot;

class RegionSkills : public testing_support::SkillFixture {};

TEST_F(RegionSkills, DetectPromptHasASpaceBeforeTheObject) {
  const auto state = must_make({.skill = DetectRequest{"  ab ", {}}});
  EXPECT_EQ(ids_of(state->prompt()), (std::vector<int>{1, 2, 36, 10, 11, 3}));
}

TEST_F(RegionSkills, DetectAsksForXYSizeInTurn) {
  const auto state = must_make({.skill = DetectRequest{"a", 2}});
  EXPECT_EQ(state->max_new_tokens(), 7);
  for (int object = 0; object < 2; ++object) {
    EXPECT_EQ(ids_of(state->next_rule().allowed), (std::vector<int>{5, 0}));
    EXPECT_EQ(state->consume(coord(0.5f)), Progress::kContinue);
    EXPECT_EQ(ids_of(state->next_rule().allowed), std::vector<int>{5});
    EXPECT_EQ(state->consume(coord(0.25f)), Progress::kContinue);
    EXPECT_EQ(ids_of(state->next_rule().allowed), std::vector<int>{6});
    EXPECT_EQ(state->consume(size(0.5f, 0.125f)), Progress::kContinue);
  }
  EXPECT_EQ(state->consume(word(0)), Progress::kStop);
  Response response;
  state->finish(response);
  ASSERT_EQ(response.boxes.size(), 2u);
  EXPECT_DOUBLE_EQ(response.boxes[0].x_min, 0.25);
  EXPECT_DOUBLE_EQ(response.boxes[0].y_min, 0.1875);
  EXPECT_DOUBLE_EQ(response.boxes[0].x_max, 0.75);
  EXPECT_DOUBLE_EQ(response.boxes[0].y_max, 0.3125);
}

TEST_F(RegionSkills, UnfinishedBoxesAndPointsAreDropped) {
  const auto detect = must_make({.skill = DetectRequest{"a", 1}});
  EXPECT_EQ(detect->consume(coord(0.5f)), Progress::kContinue);
  EXPECT_EQ(detect->consume(coord(0.5f)), Progress::kContinue);
  const auto point = must_make({.skill = PointRequest{"a", 1, {}}});
  EXPECT_EQ(point->max_new_tokens(), 3);
  EXPECT_EQ(point->consume(coord(0.5f)), Progress::kContinue);
  Response response;
  detect->finish(response);
  point->finish(response);
  EXPECT_TRUE(response.boxes.empty());
  EXPECT_TRUE(response.points.empty());
}

TEST_F(RegionSkills, BoxesAreCutAtThePicturesBorderUnlessToldNot) {
  for (const bool clamp : {true, false}) {
    compatibility_.clamp_boxes = clamp;
    const auto state = must_make({.skill = DetectRequest{"a", {}}});
    for (const SampledToken& token : {coord(0.0f), coord(1.0f), size(0.5f, 0.5f)}) {
      ASSERT_EQ(state->consume(token), Progress::kContinue);
    }
    Response response;
    state->finish(response);
    EXPECT_DOUBLE_EQ(response.boxes.at(0).x_min, clamp ? 0.0 : -0.25);
    EXPECT_DOUBLE_EQ(response.boxes.at(0).y_max, clamp ? 1.0 : 1.25);
  }
}

TEST_F(RegionSkills, ConfidenceIsPresenceTimesTheMeanOfTheNumbers) {
  const auto point = must_make({.skill = PointRequest{"a", {}, {}}});
  ASSERT_EQ(point->consume(coord(0.5f, 0.9f, std::log(0.8f))), Progress::kContinue);
  ASSERT_EQ(point->consume(coord(0.5f, 0.4f)), Progress::kContinue);
  const auto detect = must_make({.skill = DetectRequest{"a", {}}});
  ASSERT_EQ(detect->consume(coord(0.5f, 0.9f, std::log(0.8f))), Progress::kContinue);
  ASSERT_EQ(detect->consume(coord(0.5f, 0.4f)), Progress::kContinue);
  ASSERT_EQ(detect->consume(size(0.5f, 0.5f, 0.7f * 0.6f)), Progress::kContinue);
  Response response;
  point->finish(response);
  detect->finish(response);
  EXPECT_NEAR(response.points.at(0).confidence, 0.8 * std::sqrt(0.9 * 0.4), 1e-6);
  EXPECT_NEAR(response.boxes.at(0).confidence, 0.8 * std::pow(0.9 * 0.4 * 0.7 * 0.6, 0.25), 1e-6);
}

TEST_F(RegionSkills, PointTakesSpatialRefsBeforeTheObject) {
  PointRequest gaze{
      "gaze",
      {},
      {std::array<float, 2>{0.25f, 0.75f}, std::array<float, 4>{0.0f, 0.5f, 0.5f, 1.0f}}};
  const auto state = must_make({.skill = gaze});
  const auto& prompt = state->prompt();
  EXPECT_EQ(ids_of(prompt), (std::vector<int>{1, 2, 5, 5, 5, 5, 6, 36, 16, 10, 35, 14, 3}));
  EXPECT_EQ(prompt[2].a, 0.25f);
  EXPECT_EQ(prompt[3].a, 0.75f);
  EXPECT_EQ(prompt[4].a, 0.25f);  // the box's centre
  EXPECT_EQ(prompt[5].a, 0.75f);
  EXPECT_EQ(prompt[6].a, 0.5f);  // its width and height
  EXPECT_EQ(prompt[6].b, 0.5f);
}

TEST_F(RegionSkills, WithoutRegionTokensAnyWordMeansAnotherObject) {
  prompts_.coord.reset();
  prompts_.size.reset();
  const auto state = must_make({.skill = DetectRequest{"a", {}}});
  const TokenRule first = state->next_rule();
  EXPECT_TRUE(first.allowed.empty());
  EXPECT_EQ(first.slot, Slot::kCoord);
  SampledToken implied = coord(0.5f, 1.0f, -3.0f);
  implied.token.id = TokenId{22};
  ASSERT_EQ(state->consume(implied), Progress::kContinue);
  EXPECT_EQ(ids_of(state->next_rule().allowed), std::vector<int>{kNoToken.value()});
  EXPECT_EQ(state->next_rule().slot, Slot::kCoord);
  ASSERT_EQ(state->consume(coord(0.5f)), Progress::kContinue);
  EXPECT_EQ(state->next_rule().slot, Slot::kSize);
  ASSERT_EQ(state->consume(size(0.5f, 0.5f)), Progress::kContinue);
  ASSERT_EQ(state->consume(word(0)), Progress::kStop);
  Response response;
  state->finish(response);
  ASSERT_EQ(response.boxes.size(), 1u);
  EXPECT_NEAR(response.boxes[0].confidence, 1.0,
              1e-6);  // the word's own probability says nothing here
}

}  // namespace
}  // namespace fovea
