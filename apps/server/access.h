#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "api_error.h"
#include "http.h"
#include "server_options.h"

namespace fovea::server {

/// "127.0.0.1", "::1", "localhost" and the like.
bool is_loopback(std::string_view host);

/// Who may ask: keys, and what web pages of other origins may do.
class Access {
 public:
  explicit Access(const ServerOptions& options);

  /// The refusal of a request without a valid key; nothing when it may go on. Takes the same time
  /// whatever the key's first differing byte.
  std::optional<ApiError> check_key(const HttpRequest& request) const;

  /// The refusal of a request that a foreign web page sent: through its own origin, or through a
  /// name that was made to point at this machine.
  std::optional<ApiError> check_origin(const HttpRequest& request) const;

  /// Adds the headers that let the request's origin read the answer, where it may.
  void add_cors_headers(const HttpRequest& request, HttpResponse& response) const;

 private:
  bool is_allowed_origin(std::string_view origin) const;

  std::vector<std::string> keys_;
  std::vector<std::string> origins_;
  bool guards_loopback_;  // without a key, only being local protects
};

}  // namespace fovea::server
