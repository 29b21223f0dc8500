#include "wire/batch_record.h"

#include <gmock/gmock.h>

namespace fovea::wire {
namespace {

using ::testing::HasSubstr;

BatchRecord record_of(const SkillRequest& skill, Result<Response> answer) {
  BatchRecord record;
  record.path = "in/Käfer \"1\".jpg";
  record.skill = skill_name(skill);
  record.text = "red\ncar";
  record.size_bytes = 12345;
  record.modified_ms = 1700000000123;
  record.key = "00ff";
  record.answer = std::move(answer);
  return record;
}

BatchRecord there_and_back(const BatchRecord& record, const SkillRequest& skill) {
  const std::string line = batch_record_json(record, skill, TokenIds::kList);
  EXPECT_EQ(line.find('\n'), std::string::npos) << line;
  EXPECT_TRUE(line.starts_with(kBatchLineStart)) << line;
  Result<BatchRecord> read = parse_batch_record(line);
  if (!read.ok()) ADD_FAILURE() << read.error().message;
  return read.ok() ? *read : BatchRecord();
}

TEST(BatchRecord, KeepsWhatBelongsToThePicture) {
  BatchRecord record = record_of(DetectRequest{}, Response{});
  record.width = 640;
  record.height = 480;

  const BatchRecord read = there_and_back(record, DetectRequest{});

  EXPECT_EQ(read.path, record.path);
  EXPECT_EQ(read.skill, "detect");
  EXPECT_EQ(read.text, record.text);
  EXPECT_EQ(read.key, record.key);
  EXPECT_EQ(read.size_bytes, record.size_bytes);
  EXPECT_EQ(read.modified_ms, record.modified_ms);
  EXPECT_EQ(read.width, 640);
  EXPECT_EQ(read.height, 480);
}

TEST(BatchRecord, KeepsBoxes) {
  const Box box{1.0 / 3, 0.1, 2.0 / 3, 0.7, 0.99};

  const BatchRecord read =
      there_and_back(record_of(DetectRequest{}, Response{.boxes = {box}}), DetectRequest{});

  ASSERT_EQ(read.answer->boxes.size(), 1U);
  EXPECT_DOUBLE_EQ(read.answer->boxes[0].x_min, box.x_min);
  EXPECT_DOUBLE_EQ(read.answer->boxes[0].y_max, box.y_max);
  EXPECT_DOUBLE_EQ(read.answer->boxes[0].confidence, box.confidence);
}

TEST(BatchRecord, KeepsPointsTextsAndThoughts) {
  const Response points{.points = {{0.25, 0.5, 1}}, .finish_reason = FinishReason::kLength};
  const BatchRecord pointed = there_and_back(record_of(PointRequest{}, points), PointRequest{});
  EXPECT_EQ(pointed.answer->points.at(0).y, 0.5);
  EXPECT_EQ(pointed.answer->finish_reason, FinishReason::kLength);

  const Response thoughts{.text = "Two.",
                          .reasoning = Reasoning{"Käfer", {{0, 5, {{.x = 0.25, .y = 0.75}}}}}};
  const BatchRecord asked = there_and_back(record_of(QueryRequest{}, thoughts), QueryRequest{});
  EXPECT_EQ(asked.answer->text, "Two.");
  EXPECT_EQ(asked.answer->reasoning->text, "Käfer");
  EXPECT_EQ(asked.answer->reasoning->grounding.at(0).end_idx, 5);
  EXPECT_EQ(asked.answer->reasoning->grounding.at(0).points.at(0).y, 0.75);

  const Response caption{.text = " A \"moon\"."};
  EXPECT_EQ(there_and_back(record_of(CaptionRequest{}, caption), CaptionRequest{}).answer->text,
            caption.text);
}

TEST(BatchRecord, KeepsErrorsWithTheirCode) {
  const BatchRecord read = there_and_back(
      record_of(CaptionRequest{}, Error{ErrorCode::kIo, "cannot read"}), CaptionRequest{});

  EXPECT_EQ(read.answer.error().code, ErrorCode::kIo);
  EXPECT_EQ(read.answer.error().message, "cannot read");
}

TEST(BatchRecord, RefusesOtherLinesAndSaysWhy) {
  const std::string good = batch_record_json(record_of(DetectRequest{}, Response{}),
                                             DetectRequest{}, TokenIds::kLeaveOut);
  const auto complaint = [](const std::string& line) {
    const Result<BatchRecord> read = parse_batch_record(line);
    return read.ok() ? "accepted" : read.error().message;
  };
  const auto without = [&good](const std::string& part, const std::string& instead) {
    std::string line = good;
    return line.replace(line.find(part), part.size(), instead);
  };

  EXPECT_THAT(complaint(""), HasSubstr("does not begin"));
  EXPECT_THAT(complaint(R"({"name":"x"})"), HasSubstr("does not begin"));
  EXPECT_THAT(complaint(good.substr(0, good.size() - 1)), HasSubstr("no result of a batch"));
  EXPECT_THAT(complaint(without("detect", "dance")), HasSubstr("skill"));
  EXPECT_THAT(complaint(without("12345", "-1")), HasSubstr("size_bytes"));
  EXPECT_THAT(complaint(without("\"00ff\"", "7")), HasSubstr("\"key\" is not a text"));
  EXPECT_THAT(complaint(without("\"objects\":[]", "\"objects\":[3]")), HasSubstr("objects"));
  EXPECT_THAT(complaint(without("stop", "tired")), HasSubstr("finish_reason"));
  EXPECT_THAT(complaint(good + std::string(kMaxBatchLine, ' ')), HasSubstr("too many"));
}

}  // namespace
}  // namespace fovea::wire
