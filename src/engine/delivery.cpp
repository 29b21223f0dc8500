#include "engine/delivery.h"

#include <utility>

#include "base/guard.h"

namespace fovea {

Delivery::Delivery(std::optional<RequestLog> log, std::function<void(std::uint64_t)> refused)
    : log_(std::move(log)), refused_(std::move(refused)), thread_([this] { work(); }) {}

Delivery::~Delivery() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Delivery::send(std::unique_ptr<Message> message) noexcept {
  {
    const std::lock_guard lock(mutex_);
    Message* added = message.get();
    (last_ != nullptr ? last_->next : first_) = std::move(message);
    last_ = added;
  }
  wake_.notify_one();
}

void Delivery::work() {
  for (;;) {
    std::unique_ptr<Message> message;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || first_ != nullptr; });
      if (first_ == nullptr) return;
      message = std::move(first_);
      first_ = std::move(message->next);
      if (first_ == nullptr) last_ = nullptr;
    }
    tell(*message);
  }
}

void Delivery::tell(Message& message) {
  if (!message.answer) {
    bool goes_on = false;
    // What a callback throws is its own trouble: its request ends, nobody else's.
    (void)guarded([&] { goes_on = message.callbacks->on_text(message.text); });
    if (!goes_on) refused_(message.id);
    return;
  }
  const Result<Response>& answer = *message.answer;
  if (log_) {
    // A line that cannot be written is lost; the answer is not.
    (void)guarded([&] {
      RequestRecord& record = message.record;
      record.id = std::to_string(message.id);
      if (answer.ok()) {
        record.usage = answer->usage;
        record.finish_reason = answer->finish_reason;
      } else {
        record.error = answer.error();
      }
      log_->write(record);
    });
  }
  if (!message.callbacks->on_done) return;
  // Nobody is left to tell when it throws.
  (void)guarded([&] { message.callbacks->on_done(std::move(*message.answer)); });
}

}  // namespace fovea
