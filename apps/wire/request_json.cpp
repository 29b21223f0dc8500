#include "request_json.h"

#include <boost/json.hpp>
#include <charconv>
#include <fmt/format.h>
#include <limits>
#include <utility>

namespace fovea::wire {
namespace {

namespace json = boost::json;

constexpr std::int64_t kMaxInt = std::numeric_limits<std::int32_t>::max();
constexpr std::size_t kMaxStopStrings = 16;
constexpr std::size_t kMaxBiases = 1024;

template <class T, class U>
void store(std::optional<T>& target, const std::optional<U>& value) {
  if (value) target = static_cast<T>(*value);
}

void read_penalties(FieldReader& fields, SamplingParams& sampling) {
  constexpr auto kFitsPenalty = [](double x) { return x >= -2 && x <= 2; };
  if (const auto x = fields.number({"presence_penalty"}, "from -2 to 2", kFitsPenalty)) {
    sampling.presence_penalty = static_cast<float>(*x);
  }
  if (const auto x = fields.number({"frequency_penalty"}, "from -2 to 2", kFitsPenalty)) {
    sampling.frequency_penalty = static_cast<float>(*x);
  }
  if (const auto x = fields.number({"repetition_penalty", "repetitionPenalty"}, "above 0",
                                   [](double value) { return static_cast<float>(value) > 0; })) {
    sampling.repetition_penalty = static_cast<float>(*x);
  }
}

// {"id": bias, ...}
void read_logit_bias(FieldReader& fields, SamplingParams& sampling) {
  const json::object* biases = fields.object({"logit_bias"});
  if (biases == nullptr) return;
  if (biases->size() > kMaxBiases) {
    return fields.fail("logit_bias", "invalid_value",
                       fmt::format("Field 'logit_bias' must have at most {} members", kMaxBiases));
  }
  for (const auto& [key, value] : *biases) {
    std::int32_t id = 0;
    const auto [end, failure] = std::from_chars(key.data(), key.data() + key.size(), id);
    const bool is_id = failure == std::errc() && end == key.data() + key.size() && id >= 0;
    const double bias = value.is_number() ? value.to_number<double>() : 1000;
    if (!is_id || !(bias >= -100 && bias <= 100)) {
      return fields.fail("logit_bias", "invalid_value",
                         "Field 'logit_bias' must map token ids to numbers from -100 to 100");
    }
    sampling.logit_bias.emplace_back(id, static_cast<float>(bias));
  }
}

void read_stop(FieldReader& fields, SamplingParams& sampling) {
  sampling.stop = fields.strings({"stop"});
  for (const std::string& text : sampling.stop) {
    if (text.empty()) fields.fail("stop", "invalid_value", "Field 'stop' holds an empty string");
  }
  if (sampling.stop.size() > kMaxStopStrings) {
    fields.fail("stop", "invalid_value",
                fmt::format("Field 'stop' must hold at most {} strings", kMaxStopStrings));
  }
}

std::optional<int> read_max_objects(FieldReader& fields) {
  std::optional<int> max_objects;
  store(max_objects, fields.integer({"max_objects", "maxObjects"}, 1, kMaxInt));
  return max_objects;
}

CaptionRequest read_caption(FieldReader& fields) {
  const std::string length = fields.string({"length"}).value_or("normal");
  if (length == "short") return {CaptionLength::kShort};
  if (length == "long") return {CaptionLength::kLong};
  if (length != "normal") {
    fields.fail("length", "invalid_value", "Field 'length' must be short, normal or long");
  }
  return {CaptionLength::kNormal};
}

SkillRequest read_skill(Skill skill, FieldReader& fields) {
  switch (skill) {
    case Skill::kCaption:
      return read_caption(fields);
    case Skill::kQuery: {
      QueryRequest query{.question = fields.required_text({"question"})};
      query.reasoning = fields.boolean({"reasoning"}).value_or(false);
      query.spatial_refs = read_spatial_refs(fields);
      if (const json::object* schema = fields.object({"json_schema"})) {
        query.json_schema = json::serialize(*schema);
      }
      return query;
    }
    case Skill::kDetect:
      return DetectRequest{fields.required_text({"object", "obj"}), read_max_objects(fields)};
    case Skill::kPoint: {
      PointRequest point{.object = fields.required_text({"object", "obj"}),
                         .max_objects = read_max_objects(fields)};
      point.spatial_refs = read_spatial_refs(fields);
      return point;
    }
  }
  return {};
}

}  // namespace

SamplingParams read_sampling(FieldReader& fields) {
  SamplingParams sampling;
  store(sampling.temperature, fields.number({"temperature"}, "from 0 up", [](double x) {
    return x >= 0 && x <= std::numeric_limits<float>::max();
  }));
  store(sampling.top_p, fields.number({"top_p", "topP"}, "above 0, at most 1", [](double x) {
    return static_cast<float>(x) > 0 && x <= 1;
  }));
  store(sampling.top_k, fields.integer({"top_k", "topK"}, -1, kMaxInt));
  if (sampling.top_k == -1) sampling.top_k = 0;  // how some clients say "all"
  store(sampling.min_p, fields.number({"min_p", "minP"}, "from 0 to below 1", [](double x) {
    return x >= 0 && static_cast<float>(x) < 1;
  }));
  store(sampling.max_tokens,
        fields.integer({"max_completion_tokens", "max_tokens", "maxTokens"}, 1, kMaxInt));
  if (const auto seed = fields.integer({"seed"}, std::numeric_limits<std::int64_t>::min(),
                                       std::numeric_limits<std::int64_t>::max())) {
    sampling.seed = static_cast<std::uint64_t>(*seed);
  }
  read_stop(fields, sampling);
  read_penalties(fields, sampling);
  read_logit_bias(fields, sampling);
  return sampling;
}

std::vector<SpatialRef> read_spatial_refs(FieldReader& fields) {
  std::vector<SpatialRef> refs;
  const json::array* list = fields.array({"spatial_refs", "spatialRefs"});
  if (list == nullptr) return refs;
  for (const json::value& item : *list) {
    const json::array* numbers = item.if_array();
    std::array<float, 4> values{};
    bool good = numbers != nullptr && (numbers->size() == 2 || numbers->size() == 4);
    for (std::size_t i = 0; good && i < numbers->size(); ++i) {
      const json::value& number = (*numbers)[i];
      const double value = number.is_number() ? number.to_number<double>() : -1;
      good = value >= 0 && value <= 1;
      values[i] = static_cast<float>(value);
    }
    const bool is_box = good && numbers->size() == 4;
    if (is_box) good = values[0] <= values[2] && values[1] <= values[3];
    if (!good) {
      fields.fail("spatial_refs", "invalid_value",
                  "Field 'spatial_refs' must be a list of [x, y] and [x1, y1, x2, y2] within 0..1, "
                  "x1 <= x2, y1 <= y2");
      return {};
    }
    if (is_box) {
      refs.emplace_back(values);
    } else {
      refs.emplace_back(std::array<float, 2>{values[0], values[1]});
    }
  }
  return refs;
}

std::optional<std::string> read_image(FieldReader& fields, FieldReader::Names names) {
  const json::value* value = fields.find(names);
  if (value == nullptr) return std::nullopt;
  if (const json::object* object = value->if_object()) value = object->if_contains("url");
  const json::string* text = value == nullptr ? nullptr : value->if_string();
  if (text == nullptr || text->empty()) {
    fields.fail(*names.begin(), "invalid_value",
                fmt::format("Field '{}' must be a data URI, base64 or a URL, as a string or as an "
                            "object with 'url'",
                            *names.begin()));
    return std::nullopt;
  }
  return std::string(*text);
}

std::variant<SkillBody, FieldError> parse_skill_body(Skill skill, const json::object& body) {
  FieldReader fields(body);
  fields.look_in("settings");
  SkillBody parsed;
  parsed.request.skill = read_skill(skill, fields);
  parsed.request.sampling = read_sampling(fields);
  // Coordinates refer to the picture as it was sent, so that turning it is a wish of the caller.
  parsed.request.apply_exif = fields.boolean({"apply_exif", "applyExif"}).value_or(false);
  parsed.stream = fields.boolean({"stream"}).value_or(false);
  parsed.model = fields.string({"model"}).value_or("");
  parsed.adapter = fields.string({"adapter"}).value_or("");
  if (parsed.adapter.empty()) parsed.adapter = fields.string({"variant"}).value_or("");
  parsed.image = read_image(fields, {"image_url", "imageUrl"});
  if (!fields.error() && !parsed.image && skill != Skill::kQuery) {
    fields.fail("image_url", "missing_field", "Field 'image_url' is missing");
  }
  if (!fields.error() && !parsed.image && body.contains("spatial_refs") && skill == Skill::kQuery) {
    const auto& query = std::get<QueryRequest>(parsed.request.skill);
    if (!query.spatial_refs.empty()) {
      fields.fail("image_url", "missing_field",
                  "Field 'image_url' is missing: 'spatial_refs' need a picture");
    }
  }
  if (fields.error()) return *fields.error();
  return parsed;
}

}  // namespace fovea::wire
