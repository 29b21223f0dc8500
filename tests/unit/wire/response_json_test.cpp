#include "wire/response_json.h"

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <limits>

namespace fovea::wire {
namespace {

namespace json = boost::json;

TEST(JsonOutput, Detect_HasTheProtocolsObject) {
  const Response response = {
      .boxes = {{.x_min = 0.25, .y_min = 0.5, .x_max = 1, .y_max = 0.1, .confidence = 0.75}},
      .finish_reason = FinishReason::kLength};

  const std::string text = response_json(DetectRequest{"x", {}}, response, TokenIds::kLeaveOut);

  EXPECT_EQ(text.find(R"({"objects":[{"x_min":0.25,"y_min":0.5,"x_max":1.0,"y_max":0.1,)"
                      R"("confidence":0.75}],"finish_reason":"length","usage":{)"),
            0U)
      << text;
}

TEST(JsonOutput, Point_CountsAndKeepsEmptyLists) {
  const json::value object =
      json::parse(response_json(PointRequest{}, Response{}, TokenIds::kLeaveOut));

  EXPECT_TRUE(object.at("points").as_array().empty());
  EXPECT_EQ(object.at("count").as_int64(), 0);
  EXPECT_FALSE(object.as_object().contains("token_ids"));
  EXPECT_FALSE(object.as_object().contains("objects"));
}

TEST(JsonOutput, Query_ReasoningPointsArePairs) {
  const Response response = {
      .text = "Two.\n\"quoted\"",
      .reasoning = Reasoning{"Käfer", {{0, 5, {{.x = 0.21, .y = 0.55, .confidence = 1}}}}}};

  const json::value object =
      json::parse(response_json(QueryRequest{}, response, TokenIds::kLeaveOut));

  EXPECT_EQ(object.at("answer").as_string(), "Two.\n\"quoted\"");
  EXPECT_EQ(json::serialize(object.at("reasoning").at("grounding").at(0).at("points")),
            json::serialize(json::parse("[[0.21,0.55]]")));
  EXPECT_EQ(object.at("reasoning").at("grounding").at(0).at("end_idx").as_int64(), 5);
}

TEST(JsonOutput, Caption_HasNoReasoningAndListsIdsWhenAsked) {
  const Response response = {.text = "A moon.", .token_ids = {5, 51199}};

  const json::value object =
      json::parse(response_json(CaptionRequest{}, response, TokenIds::kList));

  EXPECT_EQ(object.at("caption").as_string(), "A moon.");
  EXPECT_FALSE(object.as_object().contains("reasoning"));
  EXPECT_EQ(json::serialize(object.at("token_ids")), "[5,51199]");
}

TEST(JsonOutput, LogprobsListEachTokenWithItsRivals) {
  const Response response = {
      .text = "A", .logprobs = {{.id = 5, .logprob = -0.5F, .top = {{7, -0.25F}, {5, -0.5F}}}}};

  const json::value object =
      json::parse(response_json(CaptionRequest{}, response, TokenIds::kLeaveOut));

  EXPECT_EQ(object.at("logprobs"), json::parse(R"([{"id":5,"logprob":-0.5,
      "top":[{"id":7,"logprob":-0.25},{"id":5,"logprob":-0.5}]}])"));
}

TEST(JsonOutput, UsageHasEveryCount) {
  const Response response = {.usage = {.prompt_tokens = 1,
                                       .completion_tokens = 2,
                                       .cached_tokens = 3,
                                       .queue_ms = 4,
                                       .picture_ms = 5,
                                       .vision_ms = 6,
                                       .prefill_ms = 7,
                                       .decode_ms = 8,
                                       .ttft_ms = 9,
                                       .total_ms = 10}};

  const std::string text = response_json(CaptionRequest{}, response, TokenIds::kLeaveOut);

  EXPECT_THAT(text, ::testing::HasSubstr(
                        R"("usage":{"prompt_tokens":1,"completion_tokens":2,"cached_tokens":3,)"
                        R"("queue_ms":4.0,"picture_ms":5.0,"vision_ms":6.0,"prefill_ms":7.0,)"
                        R"("decode_ms":8.0,"ttft_ms":9.0,"total_ms":10.0}})"));
}

TEST(JsonOutput, CoordinatesReadBackAsTheSameDoubles) {
  for (const double value : {0.1 + 0.2, 1.0 / 3, 5e-324, 0.4698743522167206, 1e22}) {
    const Response response = {.points = {{.x = value, .y = -value}}};
    const json::value object =
        json::parse(response_json(PointRequest{}, response, TokenIds::kLeaveOut));
    EXPECT_EQ(object.at("points").at(0).at("x").as_double(), value);
    EXPECT_EQ(object.at("points").at(0).at("y").as_double(), -value);
  }
}

TEST(JsonOutput, NotANumberIsNull) {
  const Response response = {.points = {{.x = std::numeric_limits<double>::quiet_NaN()}}};

  const json::value object =
      json::parse(response_json(PointRequest{}, response, TokenIds::kLeaveOut));

  EXPECT_TRUE(object.at("points").at(0).at("x").is_null());
}

TEST(JsonOutput, ErrorNamesItsType) {
  EXPECT_EQ(error_json({ErrorCode::kIo, "no\nroom"}),
            R"({"error":{"message":"no\nroom","type":"io"}})");
}

}  // namespace
}  // namespace fovea::wire
