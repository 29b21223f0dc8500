#include "status_routes.h"

#include <boost/json.hpp>
#include <limits>
#include <string>
#include <utility>

#include "wire/fields.h"

namespace fovea::server {
namespace {

namespace bj = boost::json;

constexpr std::size_t kMaxTokens = 1 << 20;

void respond(const std::shared_ptr<Responder>& responder, const ApiError& error) {
  responder->respond(error_response(error));
}

std::string percent_decoded(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 &&
        digit(text[i + 2]) >= 0) {
      decoded += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

}  // namespace

void handle_models(const Context& context, const HttpRequest& /*request*/,
                   const std::shared_ptr<Responder>& responder) {
  responder->respond(json_response(context.models.list()));
}

void handle_model(const Context& context, const HttpRequest& request,
                  const std::shared_ptr<Responder>& responder) {
  const std::string_view path = request.path;
  constexpr std::string_view kName = "/models/";
  const std::string id = percent_decoded(path.substr(path.find(kName) + kName.size()));
  const auto entry = context.models.entry(id);
  if (const auto* error = std::get_if<ApiError>(&entry)) return respond(responder, *error);
  responder->respond(json_response(std::get<bj::object>(entry)));
}

void handle_metrics(const Context& context, const HttpMetrics& metrics,
                    const std::shared_ptr<Responder>& responder) {
  const std::string& prefix = context.options.metrics_prefix;
  responder->respond(
      {.status = 200,
       .content_type = "text/plain; version=0.0.4; charset=utf-8",
       .headers = {},
       .body = with_prefix(context.engine.metrics_text(), prefix) + metrics.text(prefix)});
}

void handle_stats(const Context& context, const std::shared_ptr<Responder>& responder) {
  const EngineStats stats = context.engine.stats();
  responder->respond(json_response({{"workers", 1},
                                    {"queue_size", stats.num_waiting},
                                    {"max_queue_size", context.options.max_queue},
                                    {"processing", stats.num_running},
                                    {"requests_processed", stats.num_finished},
                                    {"requests_cancelled", stats.num_cancelled},
                                    {"requests_failed", stats.num_failed},
                                    {"default_timeout", context.options.deadline_s.value_or(0)},
                                    {"model", context.models.base()},
                                    {"status", "running"}}));
}

void handle_tokenize(const Context& context, const HttpRequest& request,
                     const std::shared_ptr<Responder>& responder) {
  const auto body = parse_body(request);
  if (const auto* error = std::get_if<ApiError>(&body)) return respond(responder, *error);
  wire::FieldReader fields(std::get<bj::object>(body));
  const auto text = fields.string({"prompt", "content"});
  if (!text) fields.fail("prompt", "missing_field", "Field 'prompt' is missing");
  if (fields.error()) return respond(responder, from_field(*fields.error()));
  const std::vector<std::int32_t> ids = context.engine.tokenize(*text);
  responder->respond(json_response({{"tokens", bj::array(ids.begin(), ids.end())},
                                    {"count", ids.size()},
                                    {"max_model_len", context.engine.info().max_context}}));
}

void handle_detokenize(const Context& context, const HttpRequest& request,
                       const std::shared_ptr<Responder>& responder) {
  const auto body = parse_body(request);
  if (const auto* error = std::get_if<ApiError>(&body)) return respond(responder, *error);
  wire::FieldReader fields(std::get<bj::object>(body));
  const bj::array* tokens = fields.array({"tokens"});
  std::vector<std::int32_t> ids;
  if (tokens == nullptr) {
    fields.fail("tokens", "missing_field", "Field 'tokens' is missing");
  } else if (tokens->size() > kMaxTokens) {
    fields.fail("tokens", "invalid_value", "Field 'tokens' is too long");
  } else {
    for (const bj::value& token : *tokens) {
      const std::int64_t* id = token.if_int64();
      if (id == nullptr || *id < 0 || *id > std::numeric_limits<std::int32_t>::max()) {
        fields.fail("tokens", "invalid_value", "Field 'tokens' must be a list of token ids");
        break;
      }
      ids.push_back(static_cast<std::int32_t>(*id));
    }
  }
  if (fields.error()) return respond(responder, from_field(*fields.error()));
  const std::string text = context.engine.detokenize(ids);
  responder->respond(json_response({{"prompt", text}, {"content", text}}));
}

HttpResponse version_response() { return json_response({{"version", bj::string(version())}}); }

}  // namespace fovea::server
