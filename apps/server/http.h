#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fovea::server {

/// A request as handlers see it: read whole, without the socket it came from.
struct HttpRequest {
  std::string method;
  std::string path;   ///< slashes collapsed, none at the end, no query
  std::string query;  ///< what stands behind the '?'
  std::string body;
  std::string id;  ///< of this request: the caller's X-Request-Id, or one made here
  // Headers; empty when absent.
  std::string authorization;
  std::string moondream_auth;
  std::string host;
  std::string origin;
  std::string access_control_request_method;
};

/// An answer that is sent whole, or the head of one that is streamed.
struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

/// Where a handler's answer goes: either respond() once, or begin_stream(), write() and one of
/// end_stream() and abort_stream(). Thread-safe; no call blocks. What comes after the end, or
/// after the client has gone, has no effect.
class Responder {
 public:
  virtual ~Responder() = default;

  virtual void respond(HttpResponse response) = 0;

  virtual void begin_stream(HttpResponse head) = 0;
  /// False when nobody reads any more: the client went away, or reads so slowly that its share of
  /// memory is used up.
  virtual bool write(std::string_view event) = 0;
  virtual void end_stream() = 0;
  /// Cuts the connection without a proper end, which is how the client sees that parts are missing.
  virtual void abort_stream() = 0;

  /// Calls `gone` once if the client goes away before the end; at once if it has already.
  virtual void on_gone(std::function<void()> gone) = 0;
};

}  // namespace fovea::server
