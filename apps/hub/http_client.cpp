#include "hub/http_client.h"

#include <array>
#include <chrono>
#include <curl/curl.h>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/lower_case.h"
#include "base/try.h"
#include "hub/human.h"
#include "hub/url.h"

namespace fovea::hub {
namespace {

constexpr std::size_t kMaxHeaderBytes = std::size_t{64} << 10;
constexpr std::size_t kMaxErrorBodyBytes = std::size_t{64} << 10;

// What another try cannot change: certificates, addresses that make no sense, our own refusals.
bool may_pass(CURLcode code) {
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_WRITE_ERROR:
      return false;
    default:
      return true;
  }
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using HeaderList = std::unique_ptr<curl_slist, FreeList>;

void add(HeaderList& list, const std::string& line) {
  list.reset(curl_slist_append(list.release(), line.c_str()));
}

}  // namespace

std::string HttpResponse::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string() : found->second;
}

// What the library's callbacks share during one request.
struct HttpClient::Hop {
  CURL* handle;
  BodySink& sink;
  HttpResponse response;
  Status failure;  // of the sink
  std::chrono::milliseconds stall_timeout;
  std::chrono::steady_clock::time_point last_sign = std::chrono::steady_clock::now();
  std::size_t header_bytes = 0;
  std::size_t error_body_bytes = 0;
  bool has_begun = false;
  bool has_stalled = false;

  bool begin() {
    if (has_begun) return true;
    has_begun = true;
    long status = 0;
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
    response.status = static_cast<int>(status);
    if (response.is_success()) failure = sink.begin(response);
    return failure.ok();
  }

  static std::size_t on_header(char* data, std::size_t, std::size_t size, void* self) {
    auto& hop = *static_cast<Hop*>(self);
    hop.last_sign = std::chrono::steady_clock::now();
    hop.header_bytes += size;
    if (hop.header_bytes > kMaxHeaderBytes) {
      hop.failure = error(ErrorCode::kResourceExhausted, "the server's headers exceed {} bytes",
                          kMaxHeaderBytes);
      return 0;
    }
    const std::string_view line(data, size);
    // A status line begins anew: an interim answer, or a proxy's.
    if (line.starts_with("HTTP/")) hop.response.headers.clear();
    const std::size_t colon = line.find(':');
    if (colon != std::string_view::npos) {
      hop.response.headers[lower_case(line.substr(0, colon))] = trimmed(line.substr(colon + 1));
    }
    return size;
  }

  static std::size_t on_body(char* data, std::size_t, std::size_t size, void* self) {
    auto& hop = *static_cast<Hop*>(self);
    hop.last_sign = std::chrono::steady_clock::now();
    if (!hop.begin()) return size + 1;  // anything else than `size` ends the transfer
    if (!hop.response.is_success()) {
      hop.error_body_bytes += size;
      return hop.error_body_bytes > kMaxErrorBodyBytes ? size + 1 : size;
    }
    hop.failure = hop.sink.write(std::as_bytes(std::span(data, size)));
    return hop.failure.ok() ? size : size + 1;
  }

  // Called at least once a second. The library's own limit looks at an average of several seconds.
  static int on_tick(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    auto& hop = *static_cast<Hop*>(self);
    hop.has_stalled = std::chrono::steady_clock::now() - hop.last_sign > hop.stall_timeout;
    return hop.has_stalled ? 1 : 0;
  }
};

HttpClient::HttpClient(HttpOptions options) : options_(std::move(options)) {}

HttpClient::~HttpClient() {
  if (handle_ != nullptr) curl_easy_cleanup(handle_);
}

Result<std::unique_ptr<HttpClient>> HttpClient::create(HttpOptions options) {
  std::unique_ptr<HttpClient> client(new HttpClient(std::move(options)));
  if (curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK) client->handle_ = curl_easy_init();
  if (client->handle_ == nullptr) return error(ErrorCode::kInternal, "libcurl does not start");
  return client;
}

HttpOutcome HttpClient::send_once(const HttpRequest& request, BodySink& sink, std::string& next) {
  CURL* handle = handle_;
  Hop hop{.handle = handle,
          .sink = sink,
          .response = {},
          .failure = {},
          .stall_timeout = options_.stall_timeout};
  std::array<char, CURL_ERROR_SIZE> message{};
  HeaderList headers;
  // A sum holds for the bytes as they are stored.
  add(headers, "Accept-Encoding: identity");
  if (!request.token.empty()) add(headers, "Authorization: Bearer " + request.token);
  if (!request.if_range.empty()) add(headers, "If-Range: " + request.if_range);
  if (request.range_begin > 0) add(headers, fmt::format("Range: bytes={}-", request.range_begin));

  curl_easy_reset(handle);  // keeps connections
  curl_easy_setopt(handle, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_NOBODY, request.head ? 1L : 0L);
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(handle, CURLOPT_USERAGENT, options_.user_agent.c_str());
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(options_.stall_timeout.count()));
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &Hop::on_tick);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, &hop);
  curl_easy_setopt(handle, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!options_.ca_file.empty()) {
    curl_easy_setopt(handle, CURLOPT_CAINFO, options_.ca_file.c_str());
  }
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, message.data());
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, &Hop::on_header);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, &hop);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &Hop::on_body);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &hop);

  CURLcode code = curl_easy_perform(handle);
  // What an error page says beyond our patience changes nothing about the error.
  if (hop.error_body_bytes > kMaxErrorBodyBytes) code = CURLE_OK;
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, nullptr);
  HttpOutcome outcome;
  if (code == CURLE_OK) hop.begin();  // an empty body
  if (!hop.failure.ok()) {
    outcome.status = std::move(hop.failure);
    outcome.worth_retrying = false;
  } else if (code != CURLE_OK) {
    const char* reason = hop.has_stalled      ? "the server has fallen silent"
                         : message[0] != '\0' ? message.data()
                                              : curl_easy_strerror(code);
    outcome.status = error(ErrorCode::kIo, "{}", harmless(reason));
    outcome.worth_retrying = may_pass(code);
  }
  outcome.response = std::move(hop.response);
  char* target = nullptr;
  if (code == CURLE_OK && curl_easy_getinfo(handle, CURLINFO_REDIRECT_URL, &target) == CURLE_OK &&
      target != nullptr) {
    next = target;
  }
  return outcome;
}

HttpOutcome HttpClient::send(const HttpRequest& request, BodySink& sink) {
  const auto refuse = [](Error reason) {
    return HttpOutcome{.response = {}, .status = std::move(reason), .worth_retrying = false};
  };
  HttpRequest hop = request;
  Result<Origin> home = origin_of(request.url);
  if (!home.ok()) return refuse(std::move(home).error());
  if (!request.token.empty()) {
    if (Status safe = check_token_is_safe(*home); !safe.ok()) return refuse(safe.error());
  }
  Origin here = *home;
  for (int hops = 0; hops <= options_.max_redirects; ++hops) {
    std::string next;
    HttpOutcome outcome = send_once(hop, sink, next);
    if (!outcome.status.ok() || next.empty()) return outcome;

    const Result<Origin> there = origin_of(next);
    if (!there.ok()) return refuse(there.error());
    if (Status allowed = check_redirect(here, *there); !allowed.ok()) {
      return refuse(allowed.error());
    }
    if (!request.follow_elsewhere && *there != *home) return outcome;
    hop.url = next;
    if (*there != *home) hop.token.clear();  // and it stays out when they send us back
    here = *there;
  }
  return refuse(error(ErrorCode::kResourceExhausted, "{} redirects more than {} times", home->host,
                      options_.max_redirects));
}

}  // namespace fovea::hub
