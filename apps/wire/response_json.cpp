#include "response_json.h"

#include <boost/json.hpp>
#include <cmath>
#include <utility>
#include <vector>

#include "json_text.h"

namespace fovea::wire {
namespace {

namespace json = boost::json;

json::array boxes_json(const std::vector<Box>& boxes) {
  json::array list;
  for (const Box& box : boxes) {
    list.push_back(json::object{{"x_min", box.x_min},
                                {"y_min", box.y_min},
                                {"x_max", box.x_max},
                                {"y_max", box.y_max},
                                {"confidence", box.confidence}});
  }
  return list;
}

json::array points_json(const std::vector<Point>& points) {
  json::array list;
  for (const Point& point : points) {
    list.push_back(json::object{{"x", point.x}, {"y", point.y}, {"confidence", point.confidence}});
  }
  return list;
}

json::object reasoning_json(const Reasoning& reasoning) {
  json::array grounding;
  for (const Grounding& span : reasoning.grounding) {
    json::array points;
    for (const Point& point : span.points) points.push_back(json::array{point.x, point.y});
    grounding.push_back(json::object{
        {"start_idx", span.start_idx}, {"end_idx", span.end_idx}, {"points", std::move(points)}});
  }
  return json::object{{"text", reasoning.text}, {"grounding", std::move(grounding)}};
}

json::array logprobs_json(const std::vector<TokenLogprob>& logprobs) {
  const auto entry = [](std::int32_t id, float logprob) {
    return json::object{{"id", id}, {"logprob", logprob}};
  };
  json::array list;
  for (const TokenLogprob& token : logprobs) {
    json::object object = entry(token.id, token.logprob);
    json::array top;
    for (const auto& [id, logprob] : token.top) top.push_back(entry(id, logprob));
    object["top"] = std::move(top);
    list.push_back(std::move(object));
  }
  return list;
}

json::object label_json(const SkillRequest& skill, const AnswerLabel& label) {
  json::object object{{"index", label.index}};
  if (const auto* query = std::get_if<QueryRequest>(&skill)) object["question"] = query->question;
  if (const auto* detect = std::get_if<DetectRequest>(&skill)) object["object"] = detect->object;
  if (const auto* point = std::get_if<PointRequest>(&skill)) object["object"] = point->object;
  if (label.seed) object["seed"] = *label.seed;
  return object;
}

// Clocks tick in nanoseconds, but nobody can use more digits of a millisecond than three.
double to_microseconds(double ms) { return std::round(ms * 1000.0) / 1000.0; }

json::object usage_json(const Usage& usage) {
  return json::object{{"prompt_tokens", usage.prompt_tokens},
                      {"completion_tokens", usage.completion_tokens},
                      {"cached_tokens", usage.cached_tokens},
                      {"queue_ms", to_microseconds(usage.queue_ms)},
                      {"picture_ms", to_microseconds(usage.picture_ms)},
                      {"vision_ms", to_microseconds(usage.vision_ms)},
                      {"prefill_ms", to_microseconds(usage.prefill_ms)},
                      {"decode_ms", to_microseconds(usage.decode_ms)},
                      {"ttft_ms", to_microseconds(usage.ttft_ms)},
                      {"total_ms", to_microseconds(usage.total_ms)}};
}

json::object model_json(const ModelInfo& info) {
  return json::object{{"family", info.family},
                      {"device", info.device},
                      {"device_description", info.device_description},
                      {"precision", info.precision},
                      {"num_parameters", info.num_parameters},
                      {"checkpoint_bytes", info.checkpoint_bytes},
                      {"weight_bytes", info.weight_bytes},
                      {"kv_cache_bytes", info.kv_cache_bytes},
                      {"scratch_bytes", info.scratch_bytes},
                      {"max_context", info.max_context},
                      {"vocab_size", info.vocab_size},
                      {"image_tokens", info.image_tokens},
                      {"load_ms", to_microseconds(info.load_ms)}};
}

}  // namespace

json::object response_object(const SkillRequest& skill, const Response& response) {
  json::object object;
  if (std::holds_alternative<CaptionRequest>(skill)) object["caption"] = response.text;
  if (std::holds_alternative<QueryRequest>(skill)) object["answer"] = response.text;
  if (response.reasoning) object["reasoning"] = reasoning_json(*response.reasoning);
  if (std::holds_alternative<DetectRequest>(skill)) object["objects"] = boxes_json(response.boxes);
  if (std::holds_alternative<PointRequest>(skill)) {
    object["points"] = points_json(response.points);
    object["count"] = response.points.size();
  }
  object["finish_reason"] = json::string(finish_reason_name(response.finish_reason));
  object["usage"] = usage_json(response.usage);
  if (!response.logprobs.empty()) object["logprobs"] = logprobs_json(response.logprobs);
  return object;
}

std::string response_json(const SkillRequest& skill, const Response& response, TokenIds token_ids,
                          const std::optional<AnswerLabel>& label) {
  json::object object;
  if (label) object = label_json(skill, *label);
  for (auto& pair : response_object(skill, response)) object.insert(std::move(pair));
  if (token_ids == TokenIds::kList) {
    object["token_ids"] = json::array(response.token_ids.begin(), response.token_ids.end());
  }
  return print(object);
}

std::string chunk_json(std::string_view text) {
  return print(json::object{{"chunk", json::string(text)}});
}

namespace {

json::object error_object(const Error& error) {
  return {{"message", error.message}, {"type", json::string(error_code_name(error.code))}};
}

}  // namespace

std::string error_json(const Error& error) {
  return print(json::object{{"error", error_object(error)}});
}

std::string error_json(const SkillRequest& skill, const Error& error, const AnswerLabel& label) {
  json::object object = label_json(skill, label);
  object["error"] = error_object(error);
  return print(object);
}

std::string info_json(std::span<const DeviceReport> devices, const ModelInfo* model) {
  json::array list;
  for (const DeviceReport& device : devices) {
    list.push_back(json::object{{"name", device.name},
                                {"available", device.available},
                                {"description", device.description}});
  }
  json::object object{{"version", json::string(version())}, {"devices", std::move(list)}};
  if (model != nullptr) {
    object["model"] = model_json(*model);
  } else {
    object["model"] = nullptr;
  }
  return print(object);
}

}  // namespace fovea::wire
