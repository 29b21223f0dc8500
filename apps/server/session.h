#pragma once

#include <atomic>
#include <functional>

#include "body_budget.h"
#include "network.h"
#include "server_options.h"
#include "service.h"

namespace fovea::server {

/// What all connections share. Outlives them.
struct SessionShared {
  Service& service;
  const ServerOptions& options;
  BodyBudget& budget;
  std::atomic<int> num_connections{0};
  std::atomic<int> num_exchanges{0};  ///< requests whose answer has not left yet
  std::atomic<bool> is_draining{false};
  std::function<void()> on_exchange_end;  ///< any network thread
};

/// Serves one connection until it is closed. `tls` is null for plain HTTP. The socket's executor is
/// a strand.
void start_session(tcp::socket socket, SessionShared& shared, net::ssl::context* tls);

}  // namespace fovea::server
