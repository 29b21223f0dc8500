#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::server {

/// How the server listens and whom it serves.
struct ServerOptions {
  std::string host = "127.0.0.1";                  ///< a name or an address of this machine
  std::uint16_t port = 2020;                       ///< 0: any that is free
  std::vector<std::string> api_keys;               ///< empty: everybody may ask
  bool insecure = false;                           ///< listen beyond loopback without a key
  std::filesystem::path tls_certificate, tls_key;  ///< PEM files; both or none
  std::vector<std::string> cors_origins;           ///< web pages that may ask; "*" is all of them
  std::vector<std::string> url_hosts;  ///< hosts that pictures are fetched from; empty: none are
  bool allow_private_urls = false;     ///< of those hosts also the ones in private networks
  std::string model_name;              ///< as /v1/models lists it; empty: its family's name
  std::string metrics_prefix = "fovea_";

  int num_threads = 2;  ///< network threads
  int max_connections = 4096;
  std::size_t max_body_bytes = std::size_t{48} << 20;   ///< of one request
  std::size_t max_bodies_bytes = std::size_t{1} << 30;  ///< of all that are being read
  double header_timeout_s = 15;      ///< for the head of a request, and a TLS handshake
  double body_timeout_s = 30;        ///< between two pieces of a body
  double idle_timeout_s = 75;        ///< between two requests
  double write_timeout_s = 30;       ///< until a piece of an answer has left
  double ping_interval_s = 15;       ///< of silence in a stream, before a comment is sent
  double drain_timeout_s = 30;       ///< for what runs when the server is told to stop
  std::optional<double> deadline_s;  ///< of every request
  int max_queue = 1024;              ///< of the engine; /v1/stats shows it

  /// Told one line of JSON about each exchange, on a network thread. May be empty.
  std::function<void(std::string_view line)> log;
  bool log_content = false;  ///< one more line with each question; never pictures
};

}  // namespace fovea::server
