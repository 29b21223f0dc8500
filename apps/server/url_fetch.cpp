#include "url_fetch.h"

#include <arpa/inet.h>
#include <atomic>
#include <boost/asio/ip/address.hpp>
#include <cstring>
#include <curl/curl.h>
#include <fmt/format.h>
#include <map>
#include <mutex>
#include <netinet/in.h>
#include <span>
#include <sys/socket.h>
#include <thread>
#include <utility>

#include "base/guard.h"
#include "url_guard.h"

namespace fovea::server {
namespace {

namespace ip = boost::asio::ip;

constexpr long kTimeoutMs = 5'000;  // from looking up the name to the last byte
constexpr int kMaxFetches = 32;     // at once

using Fetched = UrlFetcher::Fetched;
using Done = std::function<void(Fetched)>;

ApiError failed(std::string message) {
  return bad_request("image_url", "image_fetch_failed", std::move(message));
}

// As it was read, so that nobody reads it differently a second time.
std::string spelled(const Url& url) {
  const bool is_v6 = url.host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}{}", url.is_https ? "https" : "http", is_v6 ? "[" : "",
                     url.host, is_v6 ? "]" : "", url.port, url.target);
}

std::optional<ip::address> address_of(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    sockaddr_in v4;
    std::memcpy(&v4, &address, sizeof v4);
    return ip::address_v4(ntohl(v4.sin_addr.s_addr));
  }
  if (address.sa_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, &address, sizeof v6);
    ip::address_v6::bytes_type bytes;
    std::memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
    return ip::address_v6(bytes);
  }
  return std::nullopt;
}

struct EndTransfer {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};

struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

// One picture on its way.
struct Fetch {
  Fetch(Url asked, Done then, const ServerOptions& limits)
      : url(std::move(asked)), done(std::move(then)), options(limits), handle(curl_easy_init()) {}

  bool prepare() {
    if (!handle || !headers) return false;
    CURL* const curl = handle.get();
    curl_easy_setopt(curl, CURLOPT_URL, spelled(url).c_str());
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_PROXY, "");  // it would connect to whatever it is asked to
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, kTimeoutMs);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "fovea");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(curl, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, message);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, &Fetch::on_socket);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, this);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &Fetch::on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, this);
    return true;
  }

  // The address that is looked at here is the one that is connected to.
  static curl_socket_t on_socket(void* self, curlsocktype, curl_sockaddr* to) {
    auto& fetch = *static_cast<Fetch*>(self);
    if (!fetch.options.allow_private_urls) {
      const std::optional<ip::address> address = address_of(to->addr);
      if (!address || !is_public_address(*address)) {
        fetch.was_refused = true;
        return CURL_SOCKET_BAD;
      }
    }
    return ::socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
  }

  static std::size_t on_body(char* data, std::size_t, std::size_t size, void* self) {
    auto& fetch = *static_cast<Fetch*>(self);
    if (size > fetch.options.max_body_bytes - fetch.bytes.size()) {
      fetch.is_too_large = true;
      return size + 1;  // anything else than `size` ends the transfer
    }
    try {
      const auto part = std::as_bytes(std::span(data, size));
      fetch.bytes.insert(fetch.bytes.end(), part.begin(), part.end());
    } catch (...) {
      return size + 1;
    }
    return size;
  }

  Fetched result(CURLcode code) {
    if (is_too_large) {
      return failed(fmt::format("the picture exceeds {} bytes", options.max_body_bytes));
    }
    if (code == CURLE_COULDNT_RESOLVE_HOST) return failed("there is no host " + url.host);
    if (code != CURLE_OK && was_refused) return failed(url.host + " is not on the public internet");
    if (code != CURLE_OK) {
      return failed(fmt::format("fetching the picture failed: {}",
                                message[0] != '\0' ? message : curl_easy_strerror(code)));
    }
    long status = 0;
    curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
    if (status >= 300 && status < 400) return failed("redirects are not followed");
    if (status != 200) return failed(fmt::format("{} answered {}", url.host, status));
    return Fetched(std::move(bytes));
  }

  const Url url;
  Done done;
  const ServerOptions& options;
  const std::unique_ptr<curl_slist, FreeList> headers{
      curl_slist_append(nullptr, "Accept: image/*")};
  const std::unique_ptr<CURL, EndTransfer> handle;
  std::vector<std::byte> bytes;
  char message[CURL_ERROR_SIZE] = {};
  bool was_refused = false;
  bool is_too_large = false;
};

struct EndTransfers {
  void operator()(CURLM* transfers) const { curl_multi_cleanup(transfers); }
};
using Transfers = std::unique_ptr<CURLM, EndTransfers>;

class GuardedFetcher final : public UrlFetcher {
 public:
  GuardedFetcher(const ServerOptions& options, Transfers transfers)
      : options_(options), transfers_(std::move(transfers)), thread_([this] { run(); }) {}

  ~GuardedFetcher() override {
    has_ended_ = true;
    curl_multi_wakeup(transfers_.get());
    thread_.join();
  }

  void fetch(const std::string& text, Done done) override {
    const std::optional<Url> url = parse_url(text);
    if (!url) return done(failed("this is no URL that a picture can be fetched from"));
    if (!is_allowed_host(options_.url_hosts, *url)) {
      return done(failed(fmt::format("pictures are not fetched from {}:{}", url->host, url->port)));
    }
    auto fetch = std::make_unique<Fetch>(*url, std::move(done), options_);
    if (!fetch->prepare()) return fetch->done(failed("fetching the picture failed"));
    if (!line_up(fetch)) {
      return fetch->done(ApiError{429, "rate_limit_error", "queue_full",
                                  "too many pictures are being fetched", "", 1});
    }
    curl_multi_wakeup(transfers_.get());
  }

 private:
  using Fetches = std::map<CURL*, std::unique_ptr<Fetch>>;

  // Takes the fetch, unless there are too many.
  bool line_up(std::unique_ptr<Fetch>& fetch) {
    CURL* const handle = fetch->handle.get();
    const std::lock_guard lock(mutex_);
    if (num_fetches_ >= kMaxFetches) return false;
    arrived_.emplace(handle, std::move(fetch));
    ++num_fetches_;
    return true;
  }

  // What is thrown here, for want of memory, concerns this fetch alone; its request goes with it.
  template <class Make>
  void end(Fetch& fetch, const Make& make) {
    --num_fetches_;
    (void)guarded([&] { fetch.done(make()); });
  }

  void run() {
    constexpr int kPollMs = 60'000;  // a wake-up ends it
    while (!has_ended_) {
      begin_arrived();
      int num_running = 0;
      curl_multi_perform(transfers_.get(), &num_running);
      end_finished();
      curl_multi_poll(transfers_.get(), nullptr, 0, kPollMs, nullptr);
    }
    begin_arrived();
    for (const auto& [handle, fetch] : running_) {
      curl_multi_remove_handle(transfers_.get(), handle);
      end(*fetch, [] { return failed("the server is ending"); });
    }
  }

  void begin_arrived() {
    Fetches arrived;
    {
      const std::lock_guard lock(mutex_);
      arrived.swap(arrived_);
    }
    while (!arrived.empty()) {
      auto node = arrived.extract(arrived.begin());
      if (curl_multi_add_handle(transfers_.get(), node.key()) == CURLM_OK) {
        running_.insert(std::move(node));
      } else {
        end(*node.mapped(), [] { return failed("fetching the picture failed"); });
      }
    }
  }

  void end_finished() {
    int num_left = 0;
    while (const CURLMsg* message = curl_multi_info_read(transfers_.get(), &num_left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      CURL* const handle = message->easy_handle;
      curl_multi_remove_handle(transfers_.get(), handle);  // ends what `message` points to
      const auto node = running_.extract(handle);
      end(*node.mapped(), [&] { return node.mapped()->result(code); });
    }
  }

  const ServerOptions options_;
  const Transfers transfers_;
  std::atomic<int> num_fetches_{0};
  std::atomic<bool> has_ended_{false};
  std::mutex mutex_;
  Fetches arrived_;  // guarded by mutex_
  Fetches running_;  // of thread_
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<UrlFetcher>> make_url_fetcher(const ServerOptions& options) {
  Transfers transfers;
  if (curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK) transfers.reset(curl_multi_init());
  if (!transfers) return Error{ErrorCode::kInternal, "libcurl does not start"};
  return std::unique_ptr<UrlFetcher>(
      std::make_unique<GuardedFetcher>(options, std::move(transfers)));
}

}  // namespace fovea::server
