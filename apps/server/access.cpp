#include "access.h"

#include <algorithm>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "base/lower_case.h"

namespace fovea::server {
namespace {

using Digest = std::array<unsigned char, SHA256_DIGEST_LENGTH>;

Digest digest(std::string_view text) {
  Digest result{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), result.data());
  return result;
}

// Of equal length whatever was sent, digests can be compared in equal time.
bool equal_in_constant_time(std::string_view a, std::string_view b) {
  const Digest first = digest(a), second = digest(b);
  return CRYPTO_memcmp(first.data(), second.data(), first.size()) == 0;
}

std::string_view bearer_token(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() < kScheme.size() ||
      lower_case(authorization.substr(0, kScheme.size())) != kScheme) {
    return {};
  }
  authorization.remove_prefix(kScheme.size());
  const std::size_t begin = authorization.find_first_not_of(' ');
  return begin == std::string_view::npos ? std::string_view() : authorization.substr(begin);
}

// "localhost:2020" and "[::1]:2020" without their ports.
std::string_view without_port(std::string_view host) {
  if (host.starts_with('[')) {
    const std::size_t end = host.find(']');
    return end == std::string_view::npos ? host : host.substr(1, end - 1);
  }
  return host.substr(0, host.find(':'));
}

}  // namespace

bool is_loopback(std::string_view host) {
  const std::string name = lower_case(host);
  return name == "localhost" || name == "::1" || name == "[::1]" || name.starts_with("127.");
}

Access::Access(const ServerOptions& options)
    : keys_(options.api_keys),
      origins_(options.cors_origins),
      guards_loopback_(options.api_keys.empty() && is_loopback(options.host)) {}

std::optional<ApiError> Access::check_key(const HttpRequest& request) const {
  if (keys_.empty()) return std::nullopt;
  const std::string_view given = request.moondream_auth.empty()
                                     ? bearer_token(request.authorization)
                                     : std::string_view(request.moondream_auth);
  bool is_known = false;
  for (const std::string& key : keys_) {
    // No early end: the place of the key in the list is nobody's business either.
    if (equal_in_constant_time(given, key)) is_known = true;
  }
  if (is_known) return std::nullopt;
  return ApiError{401, "authentication_error", "invalid_api_key",
                  given.empty() ? "an API key is needed: X-Moondream-Auth: KEY or Authorization: "
                                  "Bearer KEY"
                                : "this API key is not known here",
                  ""};
}

std::optional<ApiError> Access::check_origin(const HttpRequest& request) const {
  const auto refuse = [](std::string message) {
    return ApiError{403, "permission_error", "forbidden_origin", std::move(message), ""};
  };
  if (guards_loopback_ && !request.host.empty() && !is_loopback(without_port(request.host))) {
    return refuse(
        "this server answers to localhost only; start it with an API key for other names");
  }
  if (request.origin.empty() || is_allowed_origin(request.origin)) return std::nullopt;
  const std::size_t scheme = request.origin.find("://");
  const bool is_own = scheme != std::string::npos &&
                      lower_case(request.origin.substr(scheme + 3)) == lower_case(request.host);
  if (is_own) return std::nullopt;
  return refuse("web pages of this origin may not ask; --cors ORIGIN allows them");
}

bool Access::is_allowed_origin(std::string_view origin) const {
  return std::any_of(origins_.begin(), origins_.end(), [origin](const std::string& allowed) {
    return allowed == "*" || allowed == origin;
  });
}

void Access::add_cors_headers(const HttpRequest& request, HttpResponse& response) const {
  if (request.origin.empty() || !is_allowed_origin(request.origin)) return;
  response.headers.emplace_back("Access-Control-Allow-Origin", request.origin);
  response.headers.emplace_back("Vary", "Origin");
  response.headers.emplace_back("Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
  if (request.access_control_request_method.empty()) return;
  response.headers.emplace_back("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
  response.headers.emplace_back("Access-Control-Allow-Headers",
                                "Content-Type, Authorization, X-Moondream-Auth, X-Request-Id");
  response.headers.emplace_back("Access-Control-Max-Age", "600");
}

}  // namespace fovea::server
