#include "server.h"

#include <boost/asio/signal_set.hpp>
#include <condition_variable>
#include <csignal>
#include <fmt/format.h>
#include <fstream>
#include <mutex>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/try.h"
#include "session.h"
#include "url_fetch.h"

namespace fovea::server {

class Server::Impl {
 public:
  Impl(const ServerOptions& options, std::unique_ptr<UrlFetcher> fetcher)
      : options_(options),
        fetcher_(std::move(fetcher)),
        service_(options_, fetcher_.get()),
        budget_(options_.max_bodies_bytes),
        shared_{service_, options_, budget_, {}, {}, {}, [this] { on_exchange_end(); }},
        acceptor_(context_),
        signals_(context_),
        drain_timer_(context_) {}

  ~Impl() { join(); }

  Status open() {
    FOVEA_TRY_STATUS(check_options());
    FOVEA_TRY_STATUS(load_certificate());
    FOVEA_TRY_STATUS(listen());
    signals_.add(SIGINT);
    signals_.add(SIGTERM);
    await_signal();
    net::co_spawn(context_, accept(), net::detached);
    for (int i = 0; i < options_.num_threads; ++i) {
      threads_.emplace_back([this] { context_.run(); });
    }
    return {};
  }

  void set_engine(Engine& engine) { service_.set_engine(engine); }

  void serve() {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return is_done_; });
    }
    join();
  }

  void stop() {
    net::post(context_, [this] { begin_drain(); });
  }

  std::uint16_t port() const { return port_; }
  std::string url() const {
    const bool is_v6 = options_.host.find(':') != std::string::npos;
    return fmt::format("{}://{}{}{}:{}", tls_ ? "https" : "http", is_v6 ? "[" : "", options_.host,
                       is_v6 ? "]" : "", port_);
  }

 private:
  Status check_options() const {
    if (!is_loopback(options_.host) && options_.api_keys.empty() && !options_.insecure) {
      return invalid_argument(
          "listening on {} lets others ask: give --api-key-file, or --insecure if everybody may",
          options_.host);
    }
    if (options_.tls_certificate.empty() != options_.tls_key.empty()) {
      return invalid_argument("--tls-cert and --tls-key belong together");
    }
    return {};
  }

  Status load_certificate() {
    if (options_.tls_certificate.empty()) return {};
    tls_.emplace(net::ssl::context::tls_server);
    ErrorCodeOf failure;
    tls_->set_options(net::ssl::context::no_tlsv1 | net::ssl::context::no_tlsv1_1, failure);
    if (!failure) tls_->use_certificate_chain_file(options_.tls_certificate.string(), failure);
    if (failure) {
      return invalid_argument("cannot use the certificate {}: {}",
                              options_.tls_certificate.string(), failure.message());
    }
    tls_->use_private_key_file(options_.tls_key.string(), net::ssl::context::pem, failure);
    if (failure) {
      return invalid_argument("cannot use the key {}: {}", options_.tls_key.string(),
                              failure.message());
    }
    return {};
  }

  Status listen() {
    ErrorCodeOf failure;
    tcp::resolver resolver(context_);
    const auto found = resolver.resolve(options_.host, std::to_string(options_.port),
                                        tcp::resolver::passive, failure);
    if (failure || found.empty()) {
      return invalid_argument("there is no address {}: {}", options_.host, failure.message());
    }
    // A name may have several addresses; one that does not listen beyond this machine is preferred
    // by no rule, so the first that works is taken.
    for (const auto& entry : found) {
      failure = {};
      acceptor_.close(failure);
      acceptor_.open(entry.endpoint().protocol(), failure);
      if (!failure) acceptor_.set_option(tcp::acceptor::reuse_address(true), failure);
      if (!failure) acceptor_.bind(entry.endpoint(), failure);
      if (!failure) acceptor_.listen(net::socket_base::max_listen_connections, failure);
      if (!failure) {
        port_ = acceptor_.local_endpoint().port();
        return {};
      }
    }
    return error(ErrorCode::kIo, "cannot listen on {}:{}: {}", options_.host, options_.port,
                 failure.message());
  }

  net::awaitable<void> accept() {
    while (acceptor_.is_open()) {
      tcp::socket socket(net::make_strand(context_));
      const auto [failure] = co_await acceptor_.async_accept(socket, kAwait);
      if (failure == net::error::operation_aborted) co_return;
      const bool is_full = shared_.num_connections >= options_.max_connections;
      if (failure || is_full) {
        // Out of descriptors: those that wait in the kernel's queue wait a little longer.
        net::steady_timer pause(context_, std::chrono::milliseconds(50));
        const auto [interrupted] = co_await pause.async_wait(kAwait);
        (void)interrupted;
      }
      if (!failure) start_session(std::move(socket), shared_, tls_ ? &*tls_ : nullptr);
    }
  }

  void await_signal() {
    signals_.async_wait([this](ErrorCodeOf failure, int) {
      if (failure) return;
      if (shared_.is_draining) return finish();
      begin_drain();
      await_signal();
    });
  }

  void begin_drain() {
    if (shared_.is_draining.exchange(true)) return;
    service_.drain();
    drain_timer_.expires_after(seconds(options_.drain_timeout_s));
    drain_timer_.async_wait([this](ErrorCodeOf failure) {
      if (!failure) finish();
    });
    on_exchange_end();
  }

  void on_exchange_end() {
    if (shared_.is_draining && shared_.num_exchanges == 0) finish();
  }

  void finish() {
    const std::lock_guard lock(mutex_);
    is_done_ = true;
    changed_.notify_all();
  }

  void join() {
    context_.stop();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    fetcher_.reset();  // what it still fetches is refused while there is somebody to be told
  }

  const ServerOptions options_;
  std::unique_ptr<UrlFetcher> fetcher_;
  Service service_;
  BodyBudget budget_;
  SessionShared shared_;
  std::optional<net::ssl::context> tls_;
  // Ends before what its connections refer to.
  net::io_context context_;
  tcp::acceptor acceptor_;
  net::signal_set signals_;
  net::steady_timer drain_timer_;
  std::uint16_t port_ = 0;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_done_ = false;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::create(const ServerOptions& options) {
  std::unique_ptr<UrlFetcher> fetcher;
  if (!options.url_hosts.empty()) {
    FOVEA_TRY(fetcher, make_url_fetcher(options));
  }
  auto impl = std::make_unique<Impl>(options, std::move(fetcher));
  FOVEA_TRY_STATUS(impl->open());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

void Server::set_engine(Engine& engine) { impl_->set_engine(engine); }
void Server::serve() { impl_->serve(); }
void Server::stop() { impl_->stop(); }
std::uint16_t Server::port() const { return impl_->port(); }
std::string Server::url() const { return impl_->url(); }

Result<std::vector<std::string>> read_api_keys(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) return error(ErrorCode::kNotFound, "cannot read the keys in {}", path.string());
  std::vector<std::string> keys;
  for (std::string line; std::getline(file, line);) {
    line.erase(line.find_last_not_of(" \t\r") + 1);
    line.erase(0, line.find_first_not_of(" \t"));
    if (!line.empty() && !line.starts_with('#')) keys.push_back(line);
  }
  if (keys.empty()) return invalid_argument("{} holds no key", path.string());
  return keys;
}

}  // namespace fovea::server
