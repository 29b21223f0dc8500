#include "session.h"

#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>

#include "exchange_log.h"
#include "outbox.h"
#include "request_head.h"
#include "sse.h"

namespace fovea::server {
namespace {

constexpr std::uint32_t kMaxHeaderBytes = 16 * 1024;
constexpr std::size_t kReadBytes = 16 * 1024;
constexpr std::size_t kMaxPendingBytes = 256 * 1024;  // of events that a slow reader left waiting
constexpr std::size_t kMaxDiscardedBytes = std::size_t{256} << 20;
constexpr double kDiscardTimeoutS = 10;
constexpr int kBodyTimeouts = 10;  // a body may take so many times the longest pause in it

using Parser = http::request_parser<http::string_body>;

/// One connection. Everything runs on its strand; other threads only post.
template <class Stream>
class Session : public std::enable_shared_from_this<Session<Stream>> {
 public:
  template <class... Args>
  explicit Session(SessionShared& shared, Args&&... args)
      : shared_(shared),
        stream_(std::forward<Args>(args)...),
        event_(stream_.get_executor()),
        patience_(stream_.get_executor()) {
    ++shared_.num_connections;
    shared_.service.metrics().add_connections(1);
  }
  ~Session() {
    if (outbox_) outbox_->close();
    --shared_.num_connections;
    shared_.service.metrics().add_connections(-1);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  net::awaitable<void> run() {
    ErrorCodeOf ignored;
    lowest().socket().set_option(tcp::no_delay(true), ignored);
    bool goes_on = true;
    if constexpr (kIsTls) {
      lowest().expires_after(seconds(options().header_timeout_s));
      const auto [failure] =
          co_await stream_.async_handshake(net::ssl::stream_base::server, kAwait);
      if (failure) goes_on = false;
    }
    double timeout_s = options().header_timeout_s;
    while (goes_on) {
      goes_on = co_await wait_for_data(timeout_s);
      if (goes_on) goes_on = co_await serve_one();
      timeout_s = options().idle_timeout_s;
    }
    lowest().close();
  }

 private:
  static constexpr bool kIsTls = !std::is_same_v<Stream, beast::tcp_stream>;

  const ServerOptions& options() const { return shared_.options; }
  beast::tcp_stream& lowest() { return beast::get_lowest_layer(stream_); }

  // One read is kept going while nobody reads a request: it brings the next request's first bytes,
  // and it ends when the client goes away. A client that closes its sending side counts as gone:
  // from here the two look the same.
  void watch() {
    if (is_watching_ || is_gone_ || buffer_.size() > 0) return;
    is_watching_ = true;
    lowest().expires_never();
    stream_.async_read_some(
        buffer_.prepare(kReadBytes),
        [self = this->shared_from_this()](ErrorCodeOf failure, std::size_t num_bytes) {
          self->is_watching_ = false;
          self->buffer_.commit(num_bytes);
          if (failure) self->is_gone_ = true;
          self->event_.cancel();
        });
  }

  // False when the connection is over, or nothing came in time.
  net::awaitable<bool> wait_for_data(double timeout_s) {
    watch();
    event_.expires_after(seconds(timeout_s));
    while (is_watching_) {
      const auto [interrupted] = co_await event_.async_wait(kAwait);
      if (!interrupted) co_return false;
    }
    co_return buffer_.size() > 0 && !is_gone_;
  }

  // Bounds the reads up to end_reading(). The stream's own timer would close the connection, and
  // the client would never hear why.
  void begin_reading(double timeout_s) {
    lowest().expires_never();
    is_too_slow_ = false;
    patience_.expires_after(seconds(timeout_s));
    patience_.async_wait(
        [self = this->shared_from_this(), idx = ++reading_idx_](ErrorCodeOf ended) {
          // It may have run out while the end of the reading was on its way here.
          if (ended || idx != self->reading_idx_) return;
          self->is_too_slow_ = true;
          self->lowest().cancel();
        });
  }

  void end_reading() {
    ++reading_idx_;
    patience_.cancel();
  }

  // One request and its answer. False when the connection ends with it.
  net::awaitable<bool> serve_one() {
    exchange_ = ExchangeRecord();
    Parser parser;
    parser.header_limit(kMaxHeaderBytes);
    parser.body_limit(options().max_body_bytes);
    begin_reading(options().header_timeout_s);
    const auto [failure, num_read] =
        co_await http::async_read_header(stream_, buffer_, parser, kAwait);
    end_reading();
    HttpRequest request = make_request(parser.get());
    version_ = parser.get().version();
    if (failure) co_return co_await refuse_unread(request, read_error(failure));
    keeps_alive_ = parser.keep_alive() && !shared_.is_draining;

    std::optional<HttpResponse> refusal = shared_.service.check_head(request);
    if (refusal) {
      // A body that nobody wants is in the way of the next request.
      if (!parser.is_done()) co_return co_await refuse_unread(request, std::move(refusal));
      co_return co_await send_whole(request, std::move(*refusal));
    }
    BodyBudget::Share share(shared_.budget);
    const bool wants_to_be_asked =
        beast::iequals(parser.get()[http::field::expect], "100-continue");
    if (wants_to_be_asked && !parser.is_done()) {
      const bool sent = co_await send("HTTP/1.1 100 Continue\r\n\r\n");
      if (!sent) co_return false;
    }
    std::optional<HttpResponse> trouble = co_await read_body(parser, share);
    if (trouble || !parser.is_done()) {
      co_return co_await refuse_unread(request, std::move(trouble));
    }
    request.body = std::move(parser.get().body());
    co_return co_await answer(std::move(request));
  }

  net::awaitable<std::optional<HttpResponse>> read_body(Parser& parser, BodyBudget::Share& share) {
    const auto deadline =
        std::chrono::steady_clock::now() + seconds(options().body_timeout_s * kBodyTimeouts);
    while (!parser.is_done()) {
      begin_reading(options().body_timeout_s);
      const auto [failure, num_read] =
          co_await http::async_read_some(stream_, buffer_, parser, kAwait);
      end_reading();
      // Who only closed the sending side still listens.
      if (failure == http::error::partial_message) {
        co_return error_response(
            bad_request("", "invalid_http", "the request's body ends before its stated length"));
      }
      if (failure) co_return read_error(failure);
      if (!share.grow_to(parser.get().body().size())) {
        co_return error_response({429, "rate_limit_error", "queue_full",
                                  "too many large requests are being read", "", 1});
      }
      if (std::chrono::steady_clock::now() > deadline) {
        co_return too_slow();
      }
    }
    co_return std::nullopt;
  }

  static HttpResponse too_slow() {
    return error_response(
        {408, "invalid_request_error", "request_timeout", "the request came too slowly", ""});
  }

  // What to say about a request that could not be read; nothing when nobody listens.
  std::optional<HttpResponse> read_error(ErrorCodeOf failure) const {
    if (failure == http::error::body_limit) {
      return error_response(
          {413, "invalid_request_error", "payload_too_large",
           "the request's body exceeds " + std::to_string(options().max_body_bytes) + " bytes",
           ""});
    }
    if (failure == http::error::header_limit) {
      return error_response({431, "invalid_request_error", "header_too_large",
                             "the request's head exceeds 16 KiB", ""});
    }
    if (is_too_slow_) return too_slow();
    if (failure == http::error::end_of_stream || failure == http::error::partial_message) {
      return std::nullopt;
    }
    if (failure.category() != make_error_code(http::error::bad_method).category()) {
      return std::nullopt;  // of the socket
    }
    return error_response(bad_request("", "invalid_http", "no HTTP request: " + failure.message()));
  }

  // Answers although the request was not read to its end, and ends the connection in a way that
  // lets a client read the answer which is still sending.
  net::awaitable<bool> refuse_unread(const HttpRequest& request,
                                     std::optional<HttpResponse> response) {
    if (!response) co_return false;
    keeps_alive_ = false;
    const bool sent = co_await send_whole(request, std::move(*response));
    (void)sent;
    ErrorCodeOf failure;
    if constexpr (!kIsTls) lowest().socket().shutdown(tcp::socket::shutdown_send, failure);
    std::size_t discarded = buffer_.size();
    buffer_.consume(buffer_.size());
    const auto deadline = std::chrono::steady_clock::now() + seconds(kDiscardTimeoutS);
    while (!failure && discarded < kMaxDiscardedBytes &&
           std::chrono::steady_clock::now() < deadline) {
      lowest().expires_after(seconds(1));
      const auto [ended, num_bytes] =
          co_await stream_.async_read_some(buffer_.prepare(4 * kReadBytes), kAwait);
      discarded += num_bytes;
      failure = ended;
    }
    co_return false;
  }

  net::awaitable<bool> answer(HttpRequest request) {
    ++shared_.num_exchanges;
    outbox_ = std::make_shared<Outbox>(
        [weak = this->weak_from_this(), executor = stream_.get_executor()] {
          net::post(executor, [weak] {
            if (const auto self = weak.lock()) self->event_.cancel();
          });
        },
        kMaxPendingBytes);
    shared_.service.handle(request, outbox_);
    request.body = {};
    const bool goes_on = co_await send_answer(request);
    outbox_->close();
    outbox_.reset();
    --shared_.num_exchanges;
    shared_.on_exchange_end();
    co_return goes_on;
  }

  net::awaitable<bool> send_answer(const HttpRequest& request) {
    bool is_streaming = false;
    for (;;) {
      Outbox::Parcel parcel = outbox_->take();
      if (parcel.whole) co_return co_await send_whole(request, std::move(*parcel.whole));
      if (parcel.is_empty()) {
        watch();
        if (is_gone_) {
          note(request, 499);
          co_return false;
        }
        event_.expires_after(seconds(options().ping_interval_s));
        const auto [interrupted] = co_await event_.async_wait(kAwait);
        if (!interrupted && is_streaming) {
          const bool sent = co_await send(chunk(kSsePing));
          if (!sent) is_gone_ = true;
        }
        continue;
      }
      std::string bytes;
      if (parcel.head) {
        is_streaming = true;
        shared_.service.metrics().add_streams(1);
        bytes = head_text(request, std::move(*parcel.head), std::nullopt);
      }
      if (!parcel.events.empty()) bytes += chunk(parcel.events);
      if (parcel.has_ended && !parcel.was_aborted && is_chunked()) bytes += "0\r\n\r\n";
      const bool sent = co_await send(std::move(bytes));
      if (sent && !parcel.has_ended) continue;
      shared_.service.metrics().add_streams(-1);
      note(request, sent && !parcel.was_aborted ? 200 : 499);
      co_return sent && !parcel.was_aborted && is_chunked() && keeps_alive_;
    }
  }

  // HTTP/1.0 knows no chunks: there the end of the connection is the end of the answer.
  bool is_chunked() const { return version_ >= 11; }

  std::string chunk(std::string_view bytes) const {
    if (!is_chunked()) return std::string(bytes);
    std::ostringstream text;
    text << std::hex << bytes.size() << "\r\n" << bytes << "\r\n";
    return text.str();
  }

  std::string head_text(const HttpRequest& request, HttpResponse response,
                        std::optional<std::size_t> content_length) {
    shared_.service.finish_head(request, response);
    http::response<http::empty_body> head;
    head.version(version_ >= 11 ? 11 : 10);
    head.result(static_cast<unsigned>(response.status));
    head.set(http::field::server, "fovea");
    if (!response.content_type.empty()) head.set(http::field::content_type, response.content_type);
    for (const auto& [name, value] : response.headers) head.insert(name, value);
    if (content_length) {
      head.content_length(*content_length);
    } else if (response.status != 204) {
      head.chunked(is_chunked());
      if (!is_chunked()) keeps_alive_ = false;
    }
    head.keep_alive(keeps_alive_);
    std::ostringstream text;
    text << head.base();
    return text.str();
  }

  net::awaitable<bool> send_whole(const HttpRequest& request, HttpResponse response) {
    const int status = response.status;
    const std::string body = std::exchange(response.body, {});
    std::optional<std::size_t> length;
    if (status != 204) length = body.size();
    std::string bytes = head_text(request, std::move(response), length);
    if (request.method != "HEAD") bytes += body;
    const bool sent = co_await send(std::move(bytes));
    note(request, sent ? status : 499);
    co_return sent&& keeps_alive_;
  }

  net::awaitable<bool> send(std::string bytes) {
    lowest().expires_after(seconds(options().write_timeout_s));
    const auto [failure, num_sent] = co_await net::async_write(stream_, net::buffer(bytes), kAwait);
    exchange_.num_bytes += num_sent;
    co_return !failure;
  }

  void note(const HttpRequest& request, int status) {
    const std::string route = shared_.service.route_name(request);
    shared_.service.metrics().count(route, status);
    if (options().log) options().log(exchange_.line(request, route, status));
  }

  SessionShared& shared_;
  Stream stream_;
  net::steady_timer event_;     // its cancellation says that something has changed
  net::steady_timer patience_;  // with the reading that goes on
  beast::flat_buffer buffer_;
  std::shared_ptr<Outbox> outbox_;  // of the request that is being answered
  ExchangeRecord exchange_;
  unsigned version_ = 11;
  bool keeps_alive_ = false;
  std::uint64_t reading_idx_ = 0;
  bool is_too_slow_ = false;  // the reading ended because its time was up
  bool is_watching_ = false;
  bool is_gone_ = false;
};

template <class Stream>
void spawn(const std::shared_ptr<Session<Stream>>& session, const net::any_io_executor& executor) {
  net::co_spawn(
      executor, [session] { return session->run(); },
      // What a coroutine throws (memory that ran out) ends its connection and no other.
      [session](const std::exception_ptr&) {});
}

}  // namespace

void start_session(tcp::socket socket, SessionShared& shared, net::ssl::context* tls) {
  const net::any_io_executor executor = socket.get_executor();
  if (tls == nullptr) {
    spawn(std::make_shared<Session<beast::tcp_stream>>(shared, std::move(socket)), executor);
  } else {
    spawn(std::make_shared<Session<beast::ssl_stream<beast::tcp_stream>>>(shared, std::move(socket),
                                                                          *tls),
          executor);
  }
}

}  // namespace fovea::server
