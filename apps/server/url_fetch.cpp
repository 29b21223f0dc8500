#include "url_fetch.h"

#include <atomic>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <cstring>
#include <fmt/format.h>
#include <utility>

#include "network.h"
#include "url_guard.h"

namespace fovea::server {
namespace {

constexpr double kTimeoutS = 5;
constexpr int kMaxFetches = 32;  // at once

using Fetched = UrlFetcher::Fetched;

ApiError failed(std::string message) {
  return bad_request("image_url", "image_fetch_failed", std::move(message));
}

class GuardedFetcher final : public UrlFetcher {
 public:
  GuardedFetcher(net::io_context& context, const ServerOptions& options)
      : context_(context), options_(options), tls_(net::ssl::context::tls_client) {
    ErrorCodeOf ignored;  // without certificates no peer is believed, which says so itself
    tls_.set_default_verify_paths(ignored);
    tls_.set_verify_mode(net::ssl::verify_peer, ignored);
  }

  void fetch(const std::string& text, std::function<void(Fetched)> done) override {
    const std::optional<Url> url = parse_url(text);
    if (!url) return done(failed("this is no URL that a picture can be fetched from"));
    if (!is_allowed_host(options_.url_hosts, *url)) {
      return done(failed(fmt::format("pictures are not fetched from {}:{}", url->host, url->port)));
    }
    if (num_fetches_.fetch_add(1) >= kMaxFetches) {
      --num_fetches_;
      return done(ApiError{429, "rate_limit_error", "queue_full",
                           "too many pictures are being fetched", "", 1});
    }
    net::co_spawn(
        net::make_strand(context_), [this, url = *url] { return fetch_checked(url); },
        [this, done = std::move(done)](const std::exception_ptr& failure, Fetched fetched) {
          --num_fetches_;
          if (failure) return done(failed("fetching the picture failed"));
          done(std::move(fetched));
        });
  }

 private:
  net::awaitable<Fetched> fetch_checked(Url url) {
    const auto executor = co_await net::this_coro::executor;
    tcp::resolver resolver(executor);
    net::steady_timer timer(executor, seconds(kTimeoutS));
    timer.async_wait([&resolver](ErrorCodeOf failure) {
      if (!failure) resolver.cancel();
    });
    const auto [failure, found] =
        co_await resolver.async_resolve(url.host, std::to_string(url.port), kAwait);
    timer.cancel();
    if (failure) co_return failed("there is no host " + url.host + ": " + failure.message());
    // What is connected to is the address that was looked at, whatever the name means a moment
    // later.
    std::vector<tcp::endpoint> endpoints;
    for (const auto& entry : found) {
      if (options_.allow_private_urls || is_public_address(entry.endpoint().address())) {
        endpoints.push_back(entry.endpoint());
      }
    }
    if (endpoints.empty()) {
      co_return failed(url.host + " is not on the public internet");
    }
    if (!url.is_https) {
      beast::tcp_stream stream(executor);
      Fetched fetched = co_await exchange(stream, url, endpoints);
      co_return fetched;
    }
    beast::ssl_stream<beast::tcp_stream> stream(executor, tls_);
    // What the macro SSL_set_tlsext_host_name() does, without its casts.
    if (SSL_ctrl(stream.native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                 const_cast<char*>(url.host.c_str())) != 1) {
      co_return failed("the host's name cannot be used");
    }
    ErrorCodeOf ignored;
    stream.set_verify_callback(net::ssl::host_name_verification(url.host), ignored);
    Fetched fetched = co_await exchange(stream, url, endpoints);
    co_return fetched;
  }

  template <class Stream>
  net::awaitable<Fetched> exchange(Stream& stream, const Url& url,
                                   const std::vector<tcp::endpoint>& endpoints) {
    beast::tcp_stream& lowest = beast::get_lowest_layer(stream);
    lowest.expires_after(seconds(kTimeoutS));  // for all that follows
    const auto [unconnected, endpoint] = co_await lowest.async_connect(endpoints, kAwait);
    if (unconnected) {
      co_return failed("cannot connect to " + url.host + ": " + unconnected.message());
    }
    if constexpr (!std::is_same_v<Stream, beast::tcp_stream>) {
      const auto [untrusted] =
          co_await stream.async_handshake(net::ssl::stream_base::client, kAwait);
      if (untrusted) co_return failed("no trusted connection: " + untrusted.message());
    }
    http::request<http::empty_body> request(http::verb::get, url.target, 11);
    const bool is_v6 = url.host.find(':') != std::string::npos;
    request.set(http::field::host,
                fmt::format("{}{}{}:{}", is_v6 ? "[" : "", url.host, is_v6 ? "]" : "", url.port));
    request.set(http::field::user_agent, "fovea");
    request.set(http::field::accept, "image/*");
    request.keep_alive(false);
    const auto [unsent, num_sent] = co_await http::async_write(stream, request, kAwait);
    if (unsent) co_return failed("asking for the picture failed: " + unsent.message());

    beast::flat_buffer buffer;
    http::response_parser<http::string_body> parser;
    parser.body_limit(options_.max_body_bytes);
    const auto [unread, num_read] = co_await http::async_read(stream, buffer, parser, kAwait);
    if (unread == http::error::body_limit) {
      co_return failed(fmt::format("the picture exceeds {} bytes", options_.max_body_bytes));
    }
    if (unread) co_return failed("reading the picture failed: " + unread.message());
    const int status = static_cast<int>(parser.get().result_int());
    if (status >= 300 && status < 400) co_return failed("redirects are not followed");
    if (status != 200) co_return failed(fmt::format("{} answered {}", url.host, status));
    const std::string& body = parser.get().body();
    std::vector<std::byte> bytes(body.size());
    std::memcpy(bytes.data(), body.data(), body.size());
    co_return Fetched(std::move(bytes));
  }

  net::io_context& context_;
  const ServerOptions& options_;
  net::ssl::context tls_;
  std::atomic<int> num_fetches_{0};
};

}  // namespace

std::unique_ptr<UrlFetcher> make_url_fetcher(net::io_context& context,
                                             const ServerOptions& options) {
  return std::make_unique<GuardedFetcher>(context, options);
}

}  // namespace fovea::server
