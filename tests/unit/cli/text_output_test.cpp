#include "text_output.h"

#include <gmock/gmock.h>

#include "grounding.h"

namespace fovea::cli {
namespace {

using ::testing::HasSubstr;

TEST(TextOutput, Boxes_AreLinesOfPercent) {
  const Response response = {
      .boxes = {{.x_min = 0.1, .y_min = 0.25, .x_max = 0.5, .y_max = 1, .confidence = 0.934}}};

  EXPECT_EQ(response_text(DetectRequest{"red car", {}}, response),
            "1 x red car\n"
            "  1  left  10.0 %  top  25.0 %  right  50.0 %  bottom 100.0 %  confidence 0.93\n");
}

TEST(TextOutput, Points_AreLinesOfPercent) {
  const Response response = {.points = {{.x = 0.5, .y = 0.25, .confidence = 1}}};

  EXPECT_EQ(response_text(PointRequest{"dog", {}, {}}, response),
            "1 x dog\n  1  across  50.0 %  down  25.0 %  confidence 1.00\n");
}

TEST(TextOutput, NothingFoundIsSaid) {
  EXPECT_EQ(response_text(DetectRequest{"dog", {}}, {}), "No dog found.\n");
  EXPECT_EQ(response_text(PointRequest{"dog", {}, {}}, {}), "No dog found.\n");
}

TEST(TextOutput, Reasoning_ComesBeforeTheAnswerWithItsPlaces) {
  const Response response = {
      .text = " Two.",
      .reasoning = Reasoning{"A dog and a cat.", {{2, 5, {{.x = 0.2, .y = 0.3}}}}}};

  EXPECT_EQ(response_text(QueryRequest{}, response),
            "Thoughts: A dog and a cat.\n"
            "  \"dog\" is at (20.0 %, 30.0 %)\n"
            "Answer: Two.\n");
}

TEST(TextOutput, AnswerOfBlanksIsAnEmptyLine) {
  EXPECT_EQ(response_text(CaptionRequest{}, Response{.text = "  "}), "\n");
}

TEST(TextOutput, ControlCharactersAreLeftOut) {
  EXPECT_EQ(printable("a\x1b[31mb\tc\n\x07\x7f\xc3\xa4"), "a[31mb\tc\n\xc3\xa4");
}

TEST(TextOutput, Grounding_CountsCodePoints) {
  const Reasoning reasoning = {"äöü🐕x", {}};

  EXPECT_EQ(grounded_text(reasoning, {3, 4, {}}), "🐕");
  EXPECT_EQ(grounded_text(reasoning, {4, 99, {}}), "x");
  EXPECT_EQ(grounded_text(reasoning, {99, 100, {}}), "");
  EXPECT_EQ(grounded_text(reasoning, {-1, 2, {}}), "");
  EXPECT_EQ(grounded_text(reasoning, {2, 2, {}}), "");
}

}  // namespace
}  // namespace fovea::cli
