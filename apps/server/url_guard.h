#pragma once

#include <boost/asio/ip/address.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::server {

/// An http or https URL taken apart.
struct Url {
  bool is_https = false;
  std::string host;  ///< lower case; an IPv6 address without its brackets
  std::uint16_t port = 0;
  std::string target;  ///< path and query, at least "/"
};

/// Nothing for what is no http(s) URL, or holds a user name, blanks or control characters.
std::optional<Url> parse_url(std::string_view text);

/// Whether a list of hosts allows this one. Entries: "example.org", "*.example.org" (what lies
/// below it), "*", each alone for the usual port or with ":PORT".
bool is_allowed_host(const std::vector<std::string>& allowed, const Url& url);

/// Whether an address belongs to a machine on the public internet: not this machine, a private or
/// link-local net, a multicast group, a metadata service or a range kept for other purposes.
bool is_public_address(const boost::asio::ip::address& address);

}  // namespace fovea::server
