#pragma once

#include <boost/json/fwd.hpp>
#include <optional>
#include <string>
#include <variant>

#include "fovea/request.h"

#include "wire/fields.h"

namespace fovea::server {

/// A request of OpenAI's chat completions, or of its text completions, as a question.
struct ChatRequest {
  Request request;  ///< but for its picture
  std::optional<std::string> image;
  std::string model;
  int num_choices = 1;
  bool stream = false;
  bool include_usage = false;  ///< in a stream
};

/// Reads the body of /v1/chat/completions. Errors name the field: what the API has and a model here
/// cannot do is an error, what does not touch the answer is ignored.
std::variant<ChatRequest, wire::FieldError> parse_chat(const boost::json::object& body);

/// Reads the body of /v1/completions: its prompt becomes the question.
std::variant<ChatRequest, wire::FieldError> parse_completion(const boost::json::object& body);

}  // namespace fovea::server
