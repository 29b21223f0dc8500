#include "service.h"

#include <boost/json.hpp>
#include <utility>

#include "moondream_routes.h"
#include "openai_routes.h"
#include "page.h"
#include "status_routes.h"
#include "wire/json_text.h"

namespace fovea::server {
namespace {

// All that the page needs comes from here, and nothing that was not in the program can run in it.
constexpr const char* kPagePolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

HttpResponse page_response(const PageFile& file) {
  return {.status = 200,
          .content_type = std::string(file.content_type),
          .headers = {{"Content-Security-Policy", kPagePolicy}, {"Cache-Control", "no-cache"}},
          .body = std::string(file.bytes)};
}

}  // namespace

struct Service::Ready {
  ModelNames models;
  Context context;

  Ready(Engine& engine, const ServerOptions& options, UrlFetcher* fetcher)
      : models(options.model_name, engine), context{engine, models, options, fetcher} {}
};

Service::Service(const ServerOptions& options, UrlFetcher* fetcher)
    : options_(options), fetcher_(fetcher), access_(options) {
  add_open_routes();
  add_model_routes();
  add_skill_routes();
}

Service::~Service() = default;

void Service::set_engine(Engine& engine) {
  owned_ = std::make_unique<const Ready>(engine, options_, fetcher_);
  ready_ = owned_.get();
}

ApiError Service::unavailable() const {
  if (is_draining_) {
    return {503, "unavailable_error", "shutting_down", "the server is shutting down", "", 1};
  }
  return {503, "unavailable_error", "loading", "the model is being loaded", "", 1};
}

HttpResponse Service::health() const {
  if (ready_ != nullptr && !is_draining_) {
    return json_response({{"status", "ok"}, {"server", "fovea"}});
  }
  HttpResponse response = error_response(unavailable());
  boost::json::object body{{"status", is_draining_ ? "stopping" : "starting"},
                           {"server", "fovea"},
                           {"error", boost::json::parse(response.body).at("error")}};
  response.body = wire::print(body, wire::Charset::kAscii);
  return response;
}

void Service::add_open_routes() {
  const auto add = [this](const std::string& path, const std::string& name, auto make) {
    router_.add("GET", path,
                {.handle =
                     [make](const HttpRequest&, const std::shared_ptr<Responder>& responder) {
                       responder->respond(make());
                     },
                 .needs_key = false,
                 .name = name});
  };
  for (const char* path : {"/health", "/healthz", "/v1/health"}) {
    add(path, "health", [this] { return health(); });
  }
  add("/ping", "ping", [] {
    return HttpResponse{.status = 200, .content_type = "text/plain", .headers = {}, .body = {}};
  });
  add("/version", "version", [] { return version_response(); });
  for (const PageFile& file : page_files()) {
    const bool is_entrance = file.name == "index.html";
    add(is_entrance ? "/" : "/page/" + std::string(file.name), "page",
        [&file] { return page_response(file); });
  }
}

void Service::add_for_model(
    const std::string& method, const std::string& path, Route route,
    std::function<void(const Context&, const HttpRequest&, const std::shared_ptr<Responder>&)>
        handler) {
  route.handle = [this, handler = std::move(handler)](const HttpRequest& request,
                                                      const std::shared_ptr<Responder>& responder) {
    const Ready* ready = ready_;
    if (ready == nullptr) return responder->respond(error_response(unavailable()));
    handler(ready->context, request, responder);
  };
  router_.add(method, path, std::move(route));
}

void Service::add_model_routes() {
  // Endpoints may be given with /v1 or without.
  for (const std::string base : {"/v1", ""}) {
    add_for_model("GET", base + "/models", {.handle = {}, .name = "models"}, handle_models);
    add_for_model("GET", base + "/models/*", {.handle = {}, .name = "model"}, handle_model);
    add_for_model(
        "GET", base + "/stats", {.handle = {}, .name = "stats"},
        [](const Context& context, const HttpRequest&,
           const std::shared_ptr<Responder>& responder) { handle_stats(context, responder); });
    add_for_model("POST", base + "/tokenize", {.handle = {}, .name = "tokenize"}, handle_tokenize);
    add_for_model("POST", base + "/detokenize", {.handle = {}, .name = "detokenize"},
                  handle_detokenize);
  }
  add_for_model("GET", "/metrics", {.handle = {}, .name = "metrics"},
                [this](const Context& context, const HttpRequest&,
                       const std::shared_ptr<Responder>& responder) {
                  handle_metrics(context, metrics_, responder);
                });
}

void Service::add_skill_routes() {
  using wire::Skill;
  constexpr std::pair<const char*, Skill> kSkills[] = {{"caption", Skill::kCaption},
                                                       {"query", Skill::kQuery},
                                                       {"detect", Skill::kDetect},
                                                       {"point", Skill::kPoint}};
  for (const std::string base : {"/v1", ""}) {
    for (const auto& [name, skill] : kSkills) {
      add_for_model("POST", base + "/" + name, {.handle = {}, .name = name},
                    [asked = skill](const Context& context, const HttpRequest& request,
                                    const std::shared_ptr<Responder>& responder) {
                      handle_skill(context, asked, request, responder);
                    });
    }
    add_for_model("POST", base + "/segment", {.handle = {}, .name = "segment"}, handle_segment);
    add_for_model("POST", base + "/chat/completions", {.handle = {}, .name = "chat"}, handle_chat);
    add_for_model("POST", base + "/completions", {.handle = {}, .name = "completions"},
                  handle_completion);
  }
}

std::optional<HttpResponse> Service::check_head(const HttpRequest& request) const {
  if (const auto refusal = access_.check_origin(request)) return error_response(*refusal);
  if (request.method == "OPTIONS") {
    return HttpResponse{.status = 204, .content_type = {}, .headers = {}, .body = {}};
  }
  std::string allow;
  const auto found = router_.find(request, &allow);
  if (const auto* error = std::get_if<ApiError>(&found)) {
    // Without a key nobody learns which routes there are.
    if (const auto refusal = access_.check_key(request)) return error_response(*refusal);
    HttpResponse response = error_response(*error);
    if (!allow.empty()) response.headers.emplace_back("Allow", allow);
    return response;
  }
  const Route& route = *std::get<const Route*>(found);
  if (!route.needs_key) return std::nullopt;
  if (const auto refusal = access_.check_key(request)) return error_response(*refusal);
  const bool is_work = request.method == "POST";
  if (ready_ == nullptr || (is_draining_ && is_work)) return error_response(unavailable());
  return std::nullopt;
}

void Service::handle(const HttpRequest& request, const std::shared_ptr<Responder>& responder) {
  std::string allow;
  const auto found = router_.find(request, &allow);
  if (const auto* error = std::get_if<ApiError>(&found)) {
    return responder->respond(error_response(*error));
  }
  std::get<const Route*>(found)->handle(request, responder);
}

void Service::finish_head(const HttpRequest& request, HttpResponse& response) const {
  response.headers.emplace_back("X-Request-Id", request.id);
  response.headers.emplace_back("X-Content-Type-Options", "nosniff");
  access_.add_cors_headers(request, response);
}

std::string Service::route_name(const HttpRequest& request) const {
  std::string allow;
  const auto found = router_.find(request, &allow);
  const auto* route = std::get_if<const Route*>(&found);
  return route == nullptr ? "none" : (*route)->name;
}

}  // namespace fovea::server
