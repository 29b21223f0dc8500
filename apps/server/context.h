#pragma once

#include <boost/json/fwd.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <variant>

#include "fovea/engine.h"

#include "http.h"
#include "model_names.h"
#include "picture_source.h"
#include "server_options.h"

namespace fovea::server {

/// What handlers work with once the model is there. Immutable; all it points to outlives it.
struct Context {
  Engine& engine;
  const ModelNames& models;
  const ServerOptions& options;
  UrlFetcher* fetcher = nullptr;  ///< null: pictures come in requests only
};

/// The body as a JSON object. Errors: 400 invalid_json.
std::variant<boost::json::object, ApiError> parse_body(const HttpRequest& request);

/// Hands a request to the engine, to be cancelled when the client goes away. Returns its id.
Result<std::uint64_t> submit(const Context& context, Request request, Callbacks callbacks,
                             Responder& responder);

/// Where the operator asked for it: what a request wants, in the caller's words.
void log_content(const Context& context, const std::string& id, const SkillRequest& skill);

/// Gives the request its picture, if it has one, and its deadline, and goes on with `next`; else
/// answers with the error. `image` is the text of field `param`.
void with_picture(const Context& context, Request request, const std::optional<std::string>& image,
                  const std::string& param, const std::shared_ptr<Responder>& responder,
                  std::function<void(Request)> next);

HttpResponse json_response(const boost::json::object& object);

}  // namespace fovea::server
