#pragma once

#include <string>
#include <string_view>

#include "fovea/result.h"

namespace fovea::hub {

/// Whom a URL talks to: what may be told one origin may not be told another.
struct Origin {
  std::string scheme;  ///< "http" or "https"
  std::string host;    ///< lower case; IPv6 in brackets
  int port = 0;

  bool operator==(const Origin&) const = default;
};

/// The origin of an absolute URL. Errors (kInvalidArgument): anything but http and https, no host,
/// a user name or password inside.
Result<Origin> origin_of(const std::string& url);

/// Whether the host is this machine, by name or as a literal address.
bool is_loopback(const Origin& origin);

/// Whether a server at `from` may send us on to `to`: never out of https.
Status check_redirect(const Origin& from, const Origin& to);

/// Whether an access token may be sent to `origin`: encrypted, or within this machine.
Status check_token_is_safe(const Origin& origin);

/// The text with everything that is not a letter, digit or one of -._~ as %XX; one segment of a
/// path.
std::string percent_encode(std::string_view text);

}  // namespace fovea::hub
