#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include "hub/transport.h"

namespace fovea::hub {

struct HttpOptions {
  std::filesystem::path ca_file;  ///< trust these certificates (PEM) instead of the system's
  std::chrono::milliseconds stall_timeout{30'000};  ///< longest silence, also while connecting
  int max_redirects = 8;
  std::string user_agent = "fovea";
};

/// Transport over libcurl: http and https, proxies from the environment (https_proxy, no_proxy).
/// Redirects are followed here and not by the library, so that a token never leaves its origin and
/// nobody leads us out of https. One thread at a time.
class HttpClient final : public Transport {
 public:
  static Result<std::unique_ptr<HttpClient>> create(HttpOptions options);
  ~HttpClient() override;

  HttpOutcome send(const HttpRequest& request, BodySink& sink) override;

 private:
  struct Hop;
  explicit HttpClient(HttpOptions options);
  /// One request without following anything; `next` becomes where a redirect points to.
  HttpOutcome send_once(const HttpRequest& request, BodySink& sink, std::string& next);

  HttpOptions options_;
  void* handle_ = nullptr;  // the library's CURL: keeps connections for later requests
};

}  // namespace fovea::hub
