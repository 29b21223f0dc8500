#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fovea/engine.h"
#include "fovea/result.h"

#include "server_options.h"

namespace fovea::server {

/// Listens, and answers until it is told to stop. Made, served with and destroyed on one thread.
class Server {
 public:
  /// Takes the port and begins to answer: 503 until there is an engine. Errors name the option that
  /// is wrong: an address beyond loopback without a key, a port that is taken, a certificate.
  static Result<std::unique_ptr<Server>> create(const ServerOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// From now on the engine answers. It outlives serve().
  void set_engine(Engine& engine);

  /// Returns once SIGINT, SIGTERM or stop() came and what was running has been answered, or the
  /// time for that is up; a second signal ends it at once. No network thread runs afterwards.
  void serve();
  /// Any thread.
  void stop();

  std::uint16_t port() const;
  std::string url() const;

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// The keys in a file: one a line; blank lines and what begins with # are skipped. Errors name the
/// file; one without a key is an error.
Result<std::vector<std::string>> read_api_keys(const std::filesystem::path& path);

}  // namespace fovea::server
