#pragma once

#include <gmock/gmock.h>
#include <memory>
#include <string>

#include "collecting_responder.h"
#include "service.h"
#include "support/fake_engine.h"

namespace fovea::server::testing {

/// The handlers over an engine that does what the test says.
class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() {
    fovea::testing::fake_engine() = {};
    fake().info.family = "moondream2";
    fake().info.device = "cpu";
    fake().info.max_context = 2048;
    fake().adapters = {{.name = "birds"}, {.name = "01HX@120"}};
  }

  fovea::testing::FakeEngine& fake() { return fovea::testing::fake_engine(); }

  /// With the options as they stand when first asked for.
  Service& service() {
    if (!service_) {
      service_ = std::make_unique<Service>(options, fetcher);
      engine_ = std::move(Engine::create({})).value();
      service_->set_engine(*engine_);
    }
    return *service_;
  }

  /// What a connection does with a request.
  std::shared_ptr<CollectingResponder> send(HttpRequest request) {
    auto responder = std::make_shared<CollectingResponder>();
    request.id = "test-id";
    request.path = normalise_path(request.path);
    if (auto refusal = service().check_head(request)) {
      responder->respond(std::move(*refusal));
    } else {
      service().handle(request, responder);
    }
    return responder;
  }
  std::shared_ptr<CollectingResponder> post(const std::string& path, const std::string& body) {
    return send({.method = "POST", .path = path, .body = body});
  }
  std::shared_ptr<CollectingResponder> get(const std::string& path) {
    return send({.method = "GET", .path = path});
  }

  static std::string error_code(const CollectingResponder& responder) {
    return std::string(responder.json().at("error").at("code").as_string());
  }
  static std::string error_param(const CollectingResponder& responder) {
    const boost::json::value param = responder.json().at("error").at("param");
    return param.is_null() ? "null" : std::string(param.as_string());
  }

  ServerOptions options;
  UrlFetcher* fetcher = nullptr;

 private:
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Service> service_;
};

}  // namespace fovea::server::testing
