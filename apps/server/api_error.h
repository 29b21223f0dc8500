#pragma once

#include <optional>
#include <string>

#include "fovea/result.h"

#include "http.h"
#include "wire/fields.h"

namespace fovea::server {

/// A failure as the client is told: a status and the object under `error`.
struct ApiError {
  int status = 500;
  std::string type = "server_error";
  std::string code = "internal_error";
  std::string message;
  std::string param;                   ///< empty: null
  std::optional<int> retry_after_s{};  ///< header Retry-After
};

ApiError bad_request(std::string param, std::string code, std::string message);
ApiError not_found(std::string code, std::string message);
ApiError from_field(const wire::FieldError& error);

/// Where in its life a request failed: what the engine refuses at once is a field's fault, what it
/// finds later a picture's.
enum class Stage { kSubmit, kRun };
/// How a skill that the model lacks is reported: 501, or 400 for clients that retry every 5xx.
enum class Unsupported { k501, k400 };
ApiError from_engine(const Error& error, Stage stage, Unsupported unsupported);

/// {"error":{"message":...,"type":...,"param":...,"code":...}}
std::string error_body(const ApiError& error);
HttpResponse error_response(const ApiError& error);

}  // namespace fovea::server
