#include "hub/url.h"

#include <charconv>
#include <curl/curl.h>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/lower_case.h"
#include "base/try.h"
#include "hub/human.h"

namespace fovea::hub {
namespace {

struct FreeUrl {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};

// A part of a parsed URL; nothing where there is none.
std::optional<std::string> part(CURLU* url, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, which, &text, flags) != CURLUE_OK) return std::nullopt;
  std::string copy(text);
  curl_free(text);
  return copy;
}

}  // namespace

Result<Origin> origin_of(const std::string& url) {
  const std::unique_ptr<CURLU, FreeUrl> parsed(curl_url());
  if (!parsed || curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) {
    return invalid_argument("'{}' is no URL", harmless(url));
  }
  Origin origin;
  origin.scheme = part(parsed.get(), CURLUPART_SCHEME).value_or("");
  if (origin.scheme != "http" && origin.scheme != "https") {
    return invalid_argument("'{}' is neither an http nor an https URL", harmless(url));
  }
  if (part(parsed.get(), CURLUPART_USER) || part(parsed.get(), CURLUPART_PASSWORD)) {
    return invalid_argument("a URL of {} carries a user name", origin.scheme);
  }
  origin.host = lower_case(part(parsed.get(), CURLUPART_HOST).value_or(""));
  const std::string port = part(parsed.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT).value_or("");
  std::from_chars(port.data(), port.data() + port.size(), origin.port);
  if (origin.host.empty() || origin.port == 0)
    return invalid_argument("'{}' names no host", harmless(url));
  return origin;
}

bool is_loopback(const Origin& origin) {
  if (origin.host == "localhost" || origin.host == "[::1]") return true;
  // "127.evil.example" is somebody else.
  return origin.host.starts_with("127.") &&
         origin.host.find_first_not_of("0123456789.") == std::string::npos;
}

Status check_redirect(const Origin& from, const Origin& to) {
  if (from.scheme == "https" && to.scheme != "https") {
    return error(ErrorCode::kFailedPrecondition,
                 "{} sends us on from https to plain http on {}: refused", harmless(from.host),
                 harmless(to.host));
  }
  return {};
}

Status check_token_is_safe(const Origin& origin) {
  if (origin.scheme == "https" || is_loopback(origin)) return {};
  return error(ErrorCode::kFailedPrecondition,
               "an access token is not sent over plain http to {}; use https", origin.host);
}

std::string percent_encode(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                       (byte >= '0' && byte <= '9') ||
                       std::string_view("-._~").find(c) != std::string_view::npos;
    if (plain) {
      encoded += c;
    } else {
      encoded += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return encoded;
}

}  // namespace fovea::hub
