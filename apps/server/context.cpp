#include "context.h"

#include <boost/json.hpp>
#include <utility>

#include "base/json.h"
#include "wire/json_text.h"

namespace fovea::server {

std::variant<boost::json::object, ApiError> parse_body(const HttpRequest& request) {
  Result<boost::json::value> parsed = json::parse(request.body, "the request's body");
  if (!parsed.ok()) return bad_request("", "invalid_json", parsed.error().message);
  if (!parsed->is_object()) {
    return bad_request("", "invalid_json", "the request's body is not a JSON object");
  }
  return std::move(parsed->get_object());
}

Result<std::uint64_t> submit(const Context& context, Request request, Callbacks callbacks,
                             Responder& responder) {
  Result<std::uint64_t> id = context.engine.submit(std::move(request), std::move(callbacks));
  if (id.ok()) responder.on_gone([&engine = context.engine, id = *id] { engine.cancel(id); });
  return id;
}

void log_content(const Context& context, const std::string& id, const SkillRequest& skill) {
  if (!context.options.log_content || !context.options.log) return;
  boost::json::object line{{"request_id", id}};
  if (const auto* query = std::get_if<QueryRequest>(&skill)) line["question"] = query->question;
  if (const auto* detect = std::get_if<DetectRequest>(&skill)) line["object"] = detect->object;
  if (const auto* point = std::get_if<PointRequest>(&skill)) line["object"] = point->object;
  context.options.log(wire::print(line, wire::Charset::kAscii));
}

void with_picture(const Context& context, Request request, const std::optional<std::string>& image,
                  const std::string& param, const std::shared_ptr<Responder>& responder,
                  std::function<void(Request)> next) {
  if (context.options.deadline_s) request.deadline_ms = *context.options.deadline_s * 1000;
  if (!image) return next(std::move(request));
  load_picture(*image, param, context.fetcher,
               [request = std::move(request), responder,
                next = std::move(next)](std::variant<Picture, ApiError> loaded) {
                 if (const auto* error = std::get_if<ApiError>(&loaded)) {
                   return responder->respond(error_response(*error));
                 }
                 Request complete = request;
                 complete.picture = std::get<Picture>(std::move(loaded));
                 next(std::move(complete));
               });
}

HttpResponse json_response(const boost::json::object& object) {
  return {.status = 200, .headers = {}, .body = wire::print(object, wire::Charset::kAscii)};
}

}  // namespace fovea::server
