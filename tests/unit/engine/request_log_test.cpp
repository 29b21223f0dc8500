#include "engine/request_log.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace fovea {
namespace {

RequestRecord record() {
  RequestRecord record;
  record.received =
      std::chrono::system_clock::time_point(std::chrono::milliseconds(1'767'225'600'045));
  record.id = "r-1";
  record.skill = "query";
  record.usage.prompt_tokens = 735;
  record.usage.cached_tokens = 730;
  record.usage.completion_tokens = 4;
  record.usage.ttft_ms = 48.1234;
  return record;
}

json::object line_of(const RequestRecord& record, RequestLog::Detail detail) {
  std::string line;
  RequestLog([&](std::string_view text) { line = text; }, detail).write(record);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto parsed = json::parse(line, "line");
  EXPECT_TRUE(parsed.ok()) << line;
  return parsed.ok() ? parsed->as_object() : json::object{};
}

TEST(RequestLog, OneLineSaysWhatARequestCost) {
  const json::object line = line_of(record(), RequestLog::Detail::kMetadata);
  EXPECT_EQ(line.at("time"), "2026-01-01T00:00:00.045Z");
  EXPECT_EQ(line.at("id"), "r-1");
  EXPECT_EQ(line.at("skill"), "query");
  EXPECT_EQ(line.at("finish_reason"), "stop");
  EXPECT_EQ(line.at("prompt_tokens"), 735);
  EXPECT_EQ(line.at("cached_tokens"), 730);
  EXPECT_EQ(line.at("completion_tokens"), 4);
  EXPECT_DOUBLE_EQ(line.at("ttft_ms").to_number<double>(), 48.123);
  EXPECT_FALSE(line.contains("adapter"));
  EXPECT_FALSE(line.contains("error"));
}

TEST(RequestLog, ErrorMessagesAppearOnlyOnRequest) {
  RequestRecord failed = record();
  failed.error = Error{ErrorCode::kInvalidArgument, "object \"she\" is wrong"};
  const json::object metadata = line_of(failed, RequestLog::Detail::kMetadata);
  EXPECT_EQ(metadata.at("error"), "invalid_argument");
  EXPECT_EQ(boost::json::serialize(metadata).find("she"), std::string::npos);
  const json::object content = line_of(failed, RequestLog::Detail::kContent);
  EXPECT_EQ(content.at("error_message"), "object \"she\" is wrong");
}

TEST(RequestLog, TheCallersIdIsThereIfThereIsOne) {
  RequestRecord named = record();
  EXPECT_FALSE(line_of(named, RequestLog::Detail::kMetadata).contains("request_id"));
  named.request_id = "trace-7";
  EXPECT_EQ(line_of(named, RequestLog::Detail::kMetadata).at("request_id"), "trace-7");
}

TEST(RequestLog, AnErrorTakesThePlaceOfTheFinishReason) {
  RequestRecord failed = record();
  failed.error = Error{ErrorCode::kCancelled, "x"};
  const json::object line = line_of(failed, RequestLog::Detail::kMetadata);
  EXPECT_EQ(line.at("error"), "cancelled");
  EXPECT_FALSE(line.contains("finish_reason"));
}

TEST(RequestLog, OddBytesStayReadable) {
  RequestRecord odd = record();
  odd.adapter = "caf\xc3\xa9\x01";
  odd.request_id = "half a character: \xc3";
  const json::object line = line_of(odd, RequestLog::Detail::kMetadata);
  EXPECT_EQ(line.at("adapter"), "caf\xc3\xa9\x01");
  EXPECT_EQ(line.at("request_id"), "half a character: ?");
}

TEST(RequestLog, WithoutASinkNothingHappens) { RequestLog().write(record()); }

}  // namespace
}  // namespace fovea
