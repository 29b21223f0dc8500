#include "api_error.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <string_view>
#include <utility>

#include "wire/json_text.h"

namespace fovea::server {
namespace {

constexpr int kRetryAfterS = 1;

// The engine's messages begin with the name of the field that is wrong.
std::string field_named_by(std::string_view message) {
  constexpr std::array<std::string_view, 17> kFields = {"temperature",
                                                        "top_p",
                                                        "top_k",
                                                        "min_p",
                                                        "max_tokens",
                                                        "repetition_penalty",
                                                        "presence_penalty",
                                                        "frequency_penalty",
                                                        "logit_bias",
                                                        "top_logprobs",
                                                        "max_objects",
                                                        "spatial_refs",
                                                        "json_schema",
                                                        "question",
                                                        "object",
                                                        "image_url",
                                                        "stop"};
  const std::string_view word = message.substr(0, message.find_first_of(" :"));
  return std::find(kFields.begin(), kFields.end(), word) == kFields.end() ? "" : std::string(word);
}

ApiError wrong_argument(const Error& error, Stage stage) {
  if (stage == Stage::kRun) return bad_request("image_url", "image_decode_failed", error.message);
  return bad_request(field_named_by(error.message), "invalid_value", error.message);
}

ApiError over_limit(const Error& error, Stage stage) {
  if (stage == Stage::kSubmit) {
    const std::string field = field_named_by(error.message);
    return bad_request(field, field.empty() ? "context_length_exceeded" : "invalid_value",
                       error.message);
  }
  ApiError result = bad_request("image_url", "payload_too_large", error.message);
  result.status = 413;
  return result;
}

}  // namespace

ApiError bad_request(std::string param, std::string code, std::string message) {
  return {400, "invalid_request_error", std::move(code), std::move(message), std::move(param)};
}

ApiError not_found(std::string code, std::string message) {
  return {404, "not_found_error", std::move(code), std::move(message), ""};
}

ApiError from_field(const wire::FieldError& error) {
  return bad_request(error.param, error.code, error.message);
}

ApiError from_engine(const Error& error, Stage stage, Unsupported unsupported) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kFailedPrecondition:
      return wrong_argument(error, stage);
    case ErrorCode::kNotFound: {
      ApiError result = not_found("model_not_found", error.message);
      result.param = "model";
      return result;
    }
    case ErrorCode::kResourceExhausted:
      return over_limit(error, stage);
    case ErrorCode::kUnsupported:
      if (unsupported == Unsupported::k400 || !field_named_by(error.message).empty()) {
        return bad_request(field_named_by(error.message), "unsupported_value", error.message);
      }
      return {501, "not_supported_error", "skill_not_supported", error.message, ""};
    case ErrorCode::kCancelled:
      return {503, "unavailable_error", "shutting_down", "the server is shutting down",
              "",  kRetryAfterS};
    case ErrorCode::kOverloaded:
      return {429, "rate_limit_error", "queue_full", error.message, "", kRetryAfterS};
    case ErrorCode::kDeadlineExceeded:
      return {504, "server_error", "timeout", error.message, ""};
    case ErrorCode::kIo:
    case ErrorCode::kDeviceLost:
    case ErrorCode::kInternal:
      break;
  }
  return {500, "server_error", "internal_error", error.message, ""};
}

std::string error_body(const ApiError& error) {
  boost::json::object object{{"message", error.message}, {"type", error.type}};
  object["param"] = nullptr;
  if (!error.param.empty()) object["param"] = error.param;
  object["code"] = error.code;
  return wire::print(boost::json::object{{"error", std::move(object)}}, wire::Charset::kAscii);
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response{.status = error.status, .headers = {}, .body = error_body(error)};
  if (error.retry_after_s) {
    response.headers.emplace_back("Retry-After", std::to_string(*error.retry_after_s));
  }
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace fovea::server
