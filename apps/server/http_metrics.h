#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace fovea::server {

/// What the server counts beside the engine. Thread-safe.
class HttpMetrics {
 public:
  void count(const std::string& route, int status);
  void add_connections(int change) { connections_ += change; }
  void add_streams(int change) { streams_ += change; }
  std::int64_t connections() const { return connections_; }

  /// Prometheus text with names behind `prefix`.
  std::string text(std::string_view prefix) const;

 private:
  std::atomic<std::int64_t> connections_{0}, streams_{0};
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, std::uint64_t> counts_;
};

/// Metrics text of the engine with another prefix than its own.
std::string with_prefix(std::string_view metrics, std::string_view prefix);

}  // namespace fovea::server
