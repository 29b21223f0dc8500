#include "engine/request_log.h"

#include <cmath>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <iterator>

#include "base/json.h"

namespace fovea {
namespace {

// A JSON string. Bytes that are no UTF-8 would make the line unreadable: then only ASCII is kept.
std::string quoted(std::string_view text) {
  std::string quoted = boost::json::serialize(boost::json::string(text));
  if (json::parse(quoted, "").ok()) return quoted;
  std::string ascii(text);
  for (char& c : ascii) {
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  }
  return boost::json::serialize(boost::json::string(ascii));
}

// The members of one JSON object, in the order they are added.
class Line {
 public:
  void add(std::string_view key, std::string_view json) {
    fmt::format_to(std::back_inserter(text_), "{}\"{}\":{}", text_.empty() ? "{" : ",", key, json);
  }
  void add_string(std::string_view key, std::string_view text) { add(key, quoted(text)); }
  void add_ms(std::string_view key, double ms) {
    add(key, std::isfinite(ms) ? fmt::format("{:.3f}", ms) : "null");
  }
  void add_count(std::string_view key, int count) { add(key, fmt::format("{}", count)); }
  std::string take() { return std::move(text_) + "}"; }

 private:
  std::string text_;
};

std::string utc(std::chrono::system_clock::time_point time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time - seconds).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)), ms);
}

}  // namespace

void RequestLog::write(const RequestRecord& record) const {
  if (!sink_) return;
  Line line;
  line.add_string("time", utc(record.received));
  line.add_string("id", record.id);
  if (!record.request_id.empty()) line.add_string("request_id", record.request_id);
  line.add_string("skill", record.skill);
  if (!record.adapter.empty()) line.add_string("adapter", record.adapter);
  if (record.error) {
    line.add_string("error", error_code_name(record.error->code));
  } else {
    line.add_string("finish_reason", finish_reason_name(record.finish_reason));
  }
  const Usage& usage = record.usage;
  line.add_count("prompt_tokens", usage.prompt_tokens);
  line.add_count("cached_tokens", usage.cached_tokens);
  line.add_count("completion_tokens", usage.completion_tokens);
  line.add("image_cached", record.image_cached ? "true" : "false");
  line.add_ms("queue_ms", usage.queue_ms);
  line.add_ms("picture_ms", usage.picture_ms);
  line.add_ms("vision_ms", usage.vision_ms);
  line.add_ms("prefill_ms", usage.prefill_ms);
  line.add_ms("decode_ms", usage.decode_ms);
  line.add_ms("ttft_ms", usage.ttft_ms);
  line.add_ms("total_ms", usage.total_ms);
  if (detail_ == Detail::kContent && record.error) {
    line.add_string("error_message", record.error->message);
  }
  sink_(line.take());
}

}  // namespace fovea
