#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "fovea/result.h"

namespace fovea::hub {

/// One GET or HEAD.
struct HttpRequest {
  std::string url{};
  std::string token{};            ///< sent as a bearer token to the URL's own origin; may be empty
  bool head = false;              ///< headers only
  bool follow_elsewhere = true;   ///< false: a redirect to another origin is the answer itself
  std::uint64_t range_begin = 0;  ///< ask for the bytes from here on
  std::string if_range{};         ///< only if the ETag is still this one; may be empty
};

/// What a server said before the body.
struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  ///< names in lower case; the last one counts

  bool is_success() const { return status >= 200 && status < 300; }

  /// A header's value; empty where there is none.
  std::string header(const std::string& name) const;
};

/// Where the body of a successful answer goes.
class BodySink {
 public:
  virtual ~BodySink() = default;
  /// Once, before the body: the answer has a status of 2xx. An error ends the transfer.
  virtual Status begin(const HttpResponse& response) = 0;
  virtual Status write(std::span<const std::byte> bytes) = 0;
};

/// How a request ended.
struct HttpOutcome {
  HttpResponse response;       ///< status 0 when no answer came
  Status status;               ///< an error when the connection failed or the sink refused
  bool worth_retrying = true;  ///< of an error: another try may go better
};

/// Sends requests. The only door to the network; tests have one without any.
class Transport {
 public:
  virtual ~Transport() = default;
  /// Runs one request to its end. Answers with other statuses than 2xx are outcomes without an
  /// error, and their bodies are thrown away.
  virtual HttpOutcome send(const HttpRequest& request, BodySink& sink) = 0;
};

}  // namespace fovea::hub
