#include "chat_request.h"

#include <array>
#include <boost/json.hpp>
#include <fmt/format.h>
#include <utility>

#include "conversation.h"
#include "wire/request_json.h"

namespace fovea::server {
namespace {

namespace bj = boost::json;
using wire::FieldError;
using wire::FieldReader;

constexpr int kMaxChoices = 16;
constexpr int kMaxTopLogprobs = 20;

bool is_empty(const bj::value& value) {
  if (const auto* list = value.if_array()) return list->empty();
  if (const auto* object = value.if_object()) return object->empty();
  if (const auto* text = value.if_string()) return *text == "none" || text->empty();
  return value.is_null();
}

// What would change the answer and cannot be done here is refused, not passed over.
void refuse_unsupported(FieldReader& fields, const bj::object& body) {
  constexpr std::array<std::string_view, 9> kUnsupported = {
      "tools",          "functions", "grammar", "guided_choice", "guided_regex",
      "guided_grammar", "audio",     "suffix",  "best_of"};
  for (const std::string_view name : kUnsupported) {
    const bj::value* value = body.if_contains(name);
    if (value == nullptr || is_empty(*value)) continue;
    if (name == "best_of" && value->is_int64() && value->get_int64() == 1) continue;
    fields.fail(name, "unsupported_value", fmt::format("Field '{}' is not supported here", name));
  }
  if (const bj::value* choice = body.if_contains("tool_choice")) {
    const bool is_harmless =
        is_empty(*choice) || (choice->is_string() && choice->get_string() == "auto");
    if (!is_harmless) {
      fields.fail("tool_choice", "unsupported_value", "Field 'tool_choice' is not supported here");
    }
  }
}

void read_logprobs(FieldReader& fields, SamplingParams& sampling) {
  const bool wanted = fields.boolean({"logprobs"}).value_or(false);
  const auto num_rivals = fields.integer({"top_logprobs"}, 0, kMaxTopLogprobs);
  if (!wanted && num_rivals && *num_rivals > 0) {
    return fields.fail("top_logprobs", "invalid_value",
                       "Field 'top_logprobs' needs 'logprobs' to be true");
  }
  if (wanted) sampling.top_logprobs = static_cast<int>(num_rivals.value_or(0));
}

// {"type": "json_schema", "json_schema": {"schema": ...}} and what other servers made of it.
std::optional<std::string> read_schema(FieldReader& fields) {
  for (const auto name : {"json_schema", "guided_json"}) {
    const bj::value* schema = fields.find({name});
    if (schema == nullptr) continue;
    if (const auto* text = schema->if_string()) return std::string(*text);
    return bj::serialize(*schema);
  }
  if (const bj::object* structured = fields.object({"structured_outputs"})) {
    FieldReader inner(*structured, "structured_outputs.");
    const bj::object* schema = inner.object({"json"});
    if (schema != nullptr) return bj::serialize(*schema);
    fields.fail("structured_outputs", "unsupported_value",
                "Field 'structured_outputs' is supported with 'json' alone");
  }
  const bj::object* format = fields.object({"response_format"});
  if (format == nullptr) return std::nullopt;
  FieldReader inner(*format, "response_format.");
  const std::string type = inner.string({"type"}).value_or("");
  if (type == "text") return std::nullopt;
  if (type == "json_object") return R"({"type":"object"})";
  if (type != "json_schema") {
    fields.fail("response_format", "invalid_value",
                "Field 'response_format.type' must be text, json_object or json_schema");
    return std::nullopt;
  }
  const bj::object* outer = inner.object({"json_schema"});
  const bj::value* schema = outer == nullptr ? nullptr : outer->if_contains("schema");
  if (schema == nullptr) {
    fields.fail("response_format", "missing_field",
                "Field 'response_format.json_schema.schema' is missing");
    return std::nullopt;
  }
  return bj::serialize(*schema);
}

void read_common(FieldReader& fields, const bj::object& body, ChatRequest& chat) {
  refuse_unsupported(fields, body);
  chat.model = fields.string({"model"}).value_or("");
  chat.request.sampling = wire::read_sampling(fields);
  chat.request.apply_exif = fields.boolean({"apply_exif"}).value_or(false);
  chat.num_choices = static_cast<int>(fields.integer({"n"}, 1, kMaxChoices).value_or(1));
  chat.stream = fields.boolean({"stream"}).value_or(false);
  if (const bj::object* options = fields.object({"stream_options"})) {
    FieldReader inner(*options, "stream_options.");
    chat.include_usage = inner.boolean({"include_usage"}).value_or(false);
    if (inner.error()) fields.fail(*inner.error());
  }
}

bool wants_reasoning(FieldReader& fields, const bj::object& body) {
  const bj::value* reasoning = body.if_contains("reasoning");
  // {"effort": ...} as the Responses API has it.
  if (reasoning != nullptr && reasoning->is_object()) {
    FieldReader inner(reasoning->get_object(), "reasoning.");
    return inner.string({"effort"}).value_or("none") != "none";
  }
  if (const auto wanted = fields.boolean({"reasoning"})) return *wanted;
  return fields.string({"reasoning_effort"}).value_or("none") != "none";
}

}  // namespace

std::variant<ChatRequest, FieldError> parse_chat(const bj::object& body) {
  FieldReader fields(body);
  fields.look_in("settings");
  ChatRequest chat;
  read_common(fields, body, chat);
  read_logprobs(fields, chat.request.sampling);
  Conversation conversation = read_messages(fields);
  QueryRequest query{.question = std::move(conversation.question)};
  query.reasoning = wants_reasoning(fields, body);
  query.spatial_refs = wire::read_spatial_refs(fields);
  query.json_schema = read_schema(fields);
  chat.image = std::move(conversation.image);
  chat.request.skill = std::move(query);
  if (fields.error()) return *fields.error();
  return chat;
}

std::variant<ChatRequest, FieldError> parse_completion(const bj::object& body) {
  FieldReader fields(body);
  ChatRequest chat;
  read_common(fields, body, chat);
  const std::vector<std::string> prompts = fields.strings({"prompt"});
  if (prompts.size() != 1 || prompts[0].empty()) {
    fields.fail("prompt", prompts.empty() ? "missing_field" : "invalid_value",
                "Field 'prompt' must be one non-empty string");
  }
  if (fields.boolean({"echo"}).value_or(false)) {
    fields.fail("echo", "unsupported_value", "Field 'echo' is not supported here");
  }
  if (const auto num = fields.integer({"logprobs"}, 0, kMaxTopLogprobs)) {
    chat.request.sampling.top_logprobs = static_cast<int>(*num);
  }
  QueryRequest query{.question = prompts.empty() ? "" : prompts[0]};
  query.reasoning = false;
  query.json_schema = read_schema(fields);
  chat.request.skill = std::move(query);
  if (fields.error()) return *fields.error();
  return chat;
}

}  // namespace fovea::server
