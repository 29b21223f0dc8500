#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fovea/engine.h"

#include "access.h"
#include "context.h"
#include "http.h"
#include "http_metrics.h"
#include "model_names.h"
#include "picture_source.h"
#include "router.h"
#include "server_options.h"

namespace fovea::server {

/// Everything that the server answers, without sockets: requests in, answers out through
/// Responders. Thread-safe.
class Service {
 public:
  /// `fetcher` may be null and outlives the service; so do the options.
  Service(const ServerOptions& options, UrlFetcher* fetcher);
  ~Service();

  /// Until then, what needs the model is answered with 503. Called once; the engine outlives every
  /// request.
  void set_engine(Engine& engine);

  /// From now on new work is answered with 503; what runs goes on.
  void drain() { is_draining_ = true; }

  /// What can be said when only the head has been read: the refusal of a request whose body need
  /// not be waited for.
  std::optional<HttpResponse> check_head(const HttpRequest& request) const;

  /// Answers a request that check_head() let through, now or later.
  void handle(const HttpRequest& request, const std::shared_ptr<Responder>& responder);

  /// Adds what every answer to this request carries.
  void finish_head(const HttpRequest& request, HttpResponse& response) const;

  /// The name of the request's route, for logs and metrics.
  std::string route_name(const HttpRequest& request) const;

  HttpMetrics& metrics() { return metrics_; }

 private:
  struct Ready;
  using Handler = void (*)(const Context&, const HttpRequest&, const std::shared_ptr<Responder>&);

  void add_open_routes();
  void add_model_routes();
  void add_skill_routes();
  /// A route that needs the model: 503 until it is there and while draining.
  void add_for_model(
      const std::string& method, const std::string& path, Route route,
      std::function<void(const Context&, const HttpRequest&, const std::shared_ptr<Responder>&)>
          handler);
  HttpResponse health() const;
  ApiError unavailable() const;

  const ServerOptions& options_;
  UrlFetcher* fetcher_;
  Access access_;
  Router router_;
  HttpMetrics metrics_;
  std::atomic<const Ready*> ready_{nullptr};  // into owned_
  std::unique_ptr<const Ready> owned_;
  std::atomic<bool> is_draining_{false};
};

}  // namespace fovea::server
