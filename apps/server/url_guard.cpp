#include "url_guard.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/lower_case.h"

namespace fovea::server {
namespace {

namespace ip = boost::asio::ip;

bool is_host_name(std::string_view host) {
  return !host.empty() && host.size() <= 253 && std::all_of(host.begin(), host.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
  });
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (failure != std::errc() || end != text.data() + text.size() || port == 0) return std::nullopt;
  return port;
}

// "host", "host:port", "[v6]" or "[v6]:port".
bool parse_authority(std::string_view authority, Url& url) {
  std::string_view rest;
  if (authority.starts_with('[')) {
    const std::size_t end = authority.find(']');
    if (end == std::string_view::npos) return false;
    url.host = lower_case(authority.substr(1, end - 1));
    boost::system::error_code failure;
    ip::make_address_v6(url.host, failure);
    if (failure) return false;
    rest = authority.substr(end + 1);
  } else {
    const std::size_t colon = authority.find(':');
    url.host = lower_case(authority.substr(0, colon));
    if (!is_host_name(url.host)) return false;
    if (colon != std::string_view::npos) rest = authority.substr(colon);
  }
  url.port = url.is_https ? 443 : 80;
  if (rest.empty()) return true;
  if (!rest.starts_with(':')) return false;
  const auto port = parse_port(rest.substr(1));
  if (!port) return false;
  url.port = *port;
  return true;
}

struct Net {
  std::uint32_t address;
  int bits;
};

// https://www.iana.org/assignments/iana-ipv4-special-registry
constexpr std::array<Net, 15> kSpecialNets = {{{0x00000000, 8},
                                               {0x0a000000, 8},
                                               {0x64400000, 10},
                                               {0x7f000000, 8},
                                               {0xa9fe0000, 16},
                                               {0xac100000, 12},
                                               {0xc0000000, 24},
                                               {0xc0000200, 24},
                                               {0xc0586300, 24},
                                               {0xc0a80000, 16},
                                               {0xc6120000, 15},
                                               {0xc6336400, 24},
                                               {0xcb007100, 24},
                                               {0xe0000000, 4},
                                               {0xf0000000, 4}}};

bool is_public_v4(const ip::address_v4& address) {
  const std::uint32_t value = address.to_uint();
  return std::none_of(kSpecialNets.begin(), kSpecialNets.end(), [value](const Net& net) {
    return (value ^ net.address) >> (32 - net.bits) == 0;
  });
}

bool is_public_v6(const ip::address_v6& address) {
  if (address.is_v4_mapped()) return is_public_v4(ip::make_address_v4(ip::v4_mapped, address));
  const auto bytes = address.to_bytes();
  const auto word = [&bytes](std::size_t i) { return bytes[2 * i] << 8 | bytes[2 * i + 1]; };
  // Only 2000::/3 is given out at all; in it, tunnels hide an IPv4 address and examples nobody.
  if (bytes[0] >> 5 != 1) return false;
  if (word(0) == 0x2002) return false;
  return !(word(0) == 0x2001 && (word(1) < 0x0200 || word(1) == 0x0db8));
}

}  // namespace

std::optional<Url> parse_url(std::string_view text) {
  constexpr std::size_t kMaxUrlBytes = 8192;
  if (text.size() > kMaxUrlBytes) return std::nullopt;
  const bool is_clean = std::all_of(text.begin(), text.end(),
                                    [](char c) { return c > ' ' && c < 0x7f && c != '\\'; });
  if (!is_clean) return std::nullopt;
  Url url;
  const std::string scheme = lower_case(text.substr(0, text.find("://")));
  if (scheme != "http" && scheme != "https") return std::nullopt;
  if (text.size() < scheme.size() + 3) return std::nullopt;
  url.is_https = scheme == "https";
  text.remove_prefix(scheme.size() + 3);
  const std::size_t end = std::min(text.find_first_of("/?#"), text.size());
  const std::string_view authority = text.substr(0, end);
  if (authority.find('@') != std::string_view::npos || !parse_authority(authority, url)) {
    return std::nullopt;
  }
  std::string_view target = text.substr(end);
  target = target.substr(0, target.find('#'));
  if (!target.starts_with('/')) url.target.push_back('/');
  url.target += target;
  return url;
}

bool is_allowed_host(const std::vector<std::string>& allowed, const Url& url) {
  const std::uint16_t usual = url.is_https ? 443 : 80;
  for (const std::string& text : allowed) {
    std::string entry = lower_case(text);
    std::uint16_t port = usual;
    const std::size_t colon = entry.rfind(':');
    const bool has_port = colon != std::string::npos &&
                          (entry.find(':') == colon || entry.find("]:") != std::string::npos);
    if (has_port) {
      const auto parsed = parse_port(std::string_view(entry).substr(colon + 1));
      if (!parsed) continue;
      port = *parsed;
      entry.resize(colon);
    }
    std::string_view name = entry;
    if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
    if (port != url.port) continue;
    if (name == "*" || name == url.host) return true;
    if (name.starts_with("*.") && url.host.ends_with(name.substr(1))) return true;
  }
  return false;
}

bool is_public_address(const ip::address& address) {
  return address.is_v4() ? is_public_v4(address.to_v4()) : is_public_v6(address.to_v6());
}

}  // namespace fovea::server
