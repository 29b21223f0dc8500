#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "http.h"

namespace fovea::server {

/// The answer to one request on its way from a handler's thread to the connection's: a bounded
/// buffer between them, so that neither waits for the other. Thread-safe.
class Outbox final : public Responder {
 public:
  /// `wake` tells the connection that there is something to take; any thread, never blocks. More
  /// than `max_bytes` of events that have not been taken count as a reader that is too slow.
  Outbox(std::function<void()> wake, std::size_t max_bytes);

  void respond(HttpResponse response) override;
  void begin_stream(HttpResponse head) override;
  bool write(std::string_view event) override;
  void end_stream() override;
  void abort_stream() override;
  void on_gone(std::function<void()> gone) override;

  /// What came in since the last time.
  struct Parcel {
    std::optional<HttpResponse> whole;  ///< then there is nothing else
    std::optional<HttpResponse> head;
    std::string events;
    bool has_ended = false;
    bool was_aborted = false;
    bool is_empty() const { return !whole && !head && events.empty() && !has_ended; }
  };
  Parcel take();

  /// The client has gone: tells the handler, and takes nothing more.
  void close();

 private:
  void end(bool aborted);

  const std::function<void()> wake_;
  const std::size_t max_bytes_;
  std::mutex mutex_;
  Parcel parcel_;
  bool has_ended_ = false;
  bool is_closed_ = false;
  std::function<void()> gone_;
};

}  // namespace fovea::server
