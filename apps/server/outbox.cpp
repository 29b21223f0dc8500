#include "outbox.h"

#include <utility>

namespace fovea::server {

Outbox::Outbox(std::function<void()> wake, std::size_t max_bytes)
    : wake_(std::move(wake)), max_bytes_(max_bytes) {}

void Outbox::respond(HttpResponse response) {
  std::function<void()> dropped;
  {
    const std::lock_guard lock(mutex_);
    if (has_ended_ || is_closed_) return;
    has_ended_ = true;
    dropped = std::exchange(gone_, {});
    parcel_.whole = std::move(response);
    parcel_.has_ended = true;
  }
  wake_();
}

void Outbox::begin_stream(HttpResponse head) {
  {
    const std::lock_guard lock(mutex_);
    if (has_ended_ || is_closed_) return;
    parcel_.head = std::move(head);
  }
  wake_();
}

bool Outbox::write(std::string_view event) {
  {
    const std::lock_guard lock(mutex_);
    if (has_ended_ || is_closed_) return false;
    if (parcel_.events.size() + event.size() > max_bytes_) return false;
    parcel_.events += event;
  }
  wake_();
  return true;
}

void Outbox::end_stream() { end(false); }
void Outbox::abort_stream() { end(true); }

void Outbox::end(bool aborted) {
  std::function<void()> dropped;  // what it holds may be large: freed outside the lock
  {
    const std::lock_guard lock(mutex_);
    if (has_ended_ || is_closed_) return;
    has_ended_ = true;
    dropped = std::exchange(gone_, {});
    parcel_.has_ended = true;
    parcel_.was_aborted = aborted;
  }
  wake_();
}

void Outbox::on_gone(std::function<void()> gone) {
  {
    const std::lock_guard lock(mutex_);
    if (has_ended_) return;
    if (!is_closed_) {
      // A handler may have several things to stop.
      if (gone_) {
        gone = [first = std::move(gone_), second = std::move(gone)] {
          first();
          second();
        };
      }
      gone_ = std::move(gone);
      return;
    }
  }
  gone();
}

Outbox::Parcel Outbox::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(parcel_, {});
}

void Outbox::close() {
  std::function<void()> gone;
  {
    const std::lock_guard lock(mutex_);
    if (is_closed_) return;
    is_closed_ = true;
    parcel_ = {};
    gone = std::exchange(gone_, {});
  }
  if (gone) gone();
}

}  // namespace fovea::server
