#include "batch_record.h"

#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <utility>
#include <variant>
#include <vector>

#include "json_text.h"

namespace fovea::wire {
namespace {

namespace json = boost::json;

constexpr std::array kErrorCodes = {
    ErrorCode::kInvalidArgument,   ErrorCode::kNotFound,    ErrorCode::kFailedPrecondition,
    ErrorCode::kResourceExhausted, ErrorCode::kUnsupported, ErrorCode::kIo,
    ErrorCode::kCancelled,         ErrorCode::kOverloaded,  ErrorCode::kDeadlineExceeded,
    ErrorCode::kDeviceLost,        ErrorCode::kInternal,
};

Error wrong(std::string_view what) {
  return Error{ErrorCode::kInvalidArgument, fmt::format("no result of a batch: {}", what)};
}

// What of a line could not be read; the first one counts. Reading goes on with empty values, so
// that the code below needs no branch for each field.
class Reader {
 public:
  bool ok() const { return !error_.has_value(); }
  Error error() const { return *error_; }
  void fail(std::string_view what) {
    if (!error_) error_ = wrong(what);
  }

  const json::value* field(const json::object& object, std::string_view name) {
    const json::value* value = object.if_contains(name);
    if (value == nullptr) fail(fmt::format("it has no \"{}\"", name));
    return value;
  }
  std::string text(const json::object& object, std::string_view name) {
    const json::value* value = field(object, name);
    if (value != nullptr && value->is_string()) return std::string(value->get_string());
    fail(fmt::format("\"{}\" is not a text", name));
    return {};
  }
  std::int64_t integer(const json::object& object, std::string_view name, std::int64_t min,
                       std::int64_t max) {
    const json::value* value = field(object, name);
    if (value != nullptr && value->is_int64() && value->get_int64() >= min &&
        value->get_int64() <= max) {
      return value->get_int64();
    }
    fail(fmt::format("\"{}\" is not a whole number from {} to {}", name, min, max));
    return 0;
  }
  double number(const json::value& value, std::string_view name) {
    if (value.is_null()) return 0;  // how response_json writes what is no number
    json::error_code code;
    const double number = value.to_number<double>(code);
    if (!code && std::isfinite(number)) return number;
    fail(fmt::format("\"{}\" is not a number", name));
    return 0;
  }
  double number(const json::object& object, std::string_view name) {
    const json::value* value = field(object, name);
    return value == nullptr ? 0 : number(*value, name);
  }
  const json::object& object(const json::value* value, std::string_view name) {
    if (value != nullptr && value->is_object()) return value->get_object();
    fail(fmt::format("\"{}\" is not an object", name));
    return empty_object_;
  }
  const json::array& array(const json::object& object, std::string_view name) {
    const json::value* value = field(object, name);
    if (value != nullptr && value->is_array()) return value->get_array();
    fail(fmt::format("\"{}\" is not a list", name));
    return empty_array_;
  }

 private:
  std::optional<Error> error_;
  json::object empty_object_;
  json::array empty_array_;
};

std::vector<Box> read_boxes(const json::object& line, Reader& reader) {
  std::vector<Box> boxes;
  for (const json::value& item : reader.array(line, "objects")) {
    const json::object& box = reader.object(&item, "objects");
    boxes.push_back({reader.number(box, "x_min"), reader.number(box, "y_min"),
                     reader.number(box, "x_max"), reader.number(box, "y_max"),
                     reader.number(box, "confidence")});
  }
  return boxes;
}

std::vector<Point> read_points(const json::object& line, Reader& reader) {
  std::vector<Point> points;
  for (const json::value& item : reader.array(line, "points")) {
    const json::object& point = reader.object(&item, "points");
    points.push_back(
        {reader.number(point, "x"), reader.number(point, "y"), reader.number(point, "confidence")});
  }
  return points;
}

Reasoning read_reasoning(const json::object& object, Reader& reader) {
  constexpr std::int64_t kMax = std::numeric_limits<int>::max();
  Reasoning reasoning{reader.text(object, "text"), {}};
  for (const json::value& item : reader.array(object, "grounding")) {
    const json::object& span = reader.object(&item, "grounding");
    Grounding grounding;
    grounding.start_idx = static_cast<int>(reader.integer(span, "start_idx", 0, kMax));
    grounding.end_idx = static_cast<int>(reader.integer(span, "end_idx", 0, kMax));
    for (const json::value& pair : reader.array(span, "points")) {
      if (!pair.is_array() || pair.get_array().size() != 2) {
        reader.fail("a grounding's point has not two numbers");
        continue;
      }
      grounding.points.push_back({reader.number(pair.get_array()[0], "points"),
                                  reader.number(pair.get_array()[1], "points"), 0});
    }
    reasoning.grounding.push_back(std::move(grounding));
  }
  return reasoning;
}

Response read_response(const json::object& line, const std::string& skill, Reader& reader) {
  Response response;
  if (skill == "caption") {
    response.text = reader.text(line, "caption");
  } else if (skill == "query") {
    response.text = reader.text(line, "answer");
  } else if (skill == "detect") {
    response.boxes = read_boxes(line, reader);
  } else if (skill == "point") {
    response.points = read_points(line, reader);
  } else {
    reader.fail("there is no such \"skill\"");
  }
  if (const json::value* reasoning = line.if_contains("reasoning")) {
    response.reasoning = read_reasoning(reader.object(reasoning, "reasoning"), reader);
  }
  const std::string reason = reader.text(line, "finish_reason");
  if (reason == finish_reason_name(FinishReason::kLength)) {
    response.finish_reason = FinishReason::kLength;
  } else if (reason != finish_reason_name(FinishReason::kStop)) {
    reader.fail("there is no such \"finish_reason\"");
  }
  return response;
}

Error read_error(const json::object& object, Reader& reader) {
  const std::string type = reader.text(object, "type");
  Error error{ErrorCode::kInternal, reader.text(object, "message")};
  for (const ErrorCode code : kErrorCodes) {
    if (type == error_code_name(code)) error.code = code;
  }
  return error;
}

}  // namespace

std::string_view skill_name(const SkillRequest& skill) {
  constexpr std::array<std::string_view, std::variant_size_v<SkillRequest>> kNames = {
      "caption", "query", "detect", "point"};
  return kNames[skill.index()];
}

std::string batch_record_json(const BatchRecord& record, const SkillRequest& skill,
                              TokenIds token_ids) {
  json::object picture{{"size_bytes", record.size_bytes}, {"modified_ms", record.modified_ms}};
  if (record.width > 0) {
    picture["width"] = record.width;
    picture["height"] = record.height;
  }
  // The wire's object goes on where this one stops: its opening brace becomes a comma.
  std::string line =
      fmt::format(R"({{"path":{},"skill":{},"text":{},"key":{},"picture":{},)",
                  json_string(record.path), json_string(record.skill), json_string(record.text),
                  json_string(record.key), json::serialize(picture));
  return line + (record.answer.ok() ? response_json(skill, *record.answer, token_ids)
                                    : error_json(record.answer.error()))
                    .substr(1);
}

Result<BatchRecord> parse_batch_record(std::string_view text) {
  if (text.size() > kMaxBatchLine) return wrong(fmt::format("{} bytes are too many", text.size()));
  if (!text.starts_with(kBatchLineStart)) return wrong("it does not begin with a \"path\"");
  json::error_code code;
  const json::value value = json::parse(text, code);  // nests 32 deep at most
  if (code) return wrong(code.message());

  Reader reader;
  const json::object& line = reader.object(&value, "the line");
  BatchRecord record;
  record.path = reader.text(line, "path");
  record.skill = reader.text(line, "skill");
  record.text = reader.text(line, "text");
  record.key = reader.text(line, "key");
  const json::object& picture = reader.object(reader.field(line, "picture"), "picture");
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  record.size_bytes = static_cast<std::uint64_t>(reader.integer(picture, "size_bytes", 0, kMax));
  record.modified_ms = reader.integer(picture, "modified_ms", -kMax, kMax);
  if (picture.contains("width")) {
    constexpr int kMaxSide = std::numeric_limits<int>::max();
    record.width = static_cast<int>(reader.integer(picture, "width", 1, kMaxSide));
    record.height = static_cast<int>(reader.integer(picture, "height", 1, kMaxSide));
  }
  if (const json::value* error = line.if_contains("error")) {
    record.answer = read_error(reader.object(error, "error"), reader);
  } else {
    record.answer = read_response(line, record.skill, reader);
  }
  if (!reader.ok()) return reader.error();
  return record;
}

}  // namespace fovea::wire
