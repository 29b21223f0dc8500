#include "engine/inbox.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/clock.h"

namespace fovea {

// One by one: a long chain would destroy itself recursively.
Inbox::~Inbox() {
  while (take() != nullptr) {
  }
}

void Inbox::send(LetterPtr letter) noexcept {
  {
    const std::lock_guard lock(mutex_);
    Letter* added = letter.get();
    (last_ != nullptr ? last_->next : first_) = std::move(letter);
    last_ = added;
  }
  wake_.notify_one();
}

void Inbox::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  wake_.notify_one();
}

bool Inbox::is_closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

Inbox::LetterPtr Inbox::take() noexcept {
  const std::lock_guard lock(mutex_);
  LetterPtr letter = std::move(first_);
  if (letter == nullptr) return nullptr;
  first_ = std::move(letter->next);
  if (first_ == nullptr) last_ = nullptr;
  return letter;
}

void Inbox::wait(double until_ms) {
  std::unique_lock lock(mutex_);
  const auto something = [this] { return closed_ || first_ != nullptr; };
  if (std::isinf(until_ms)) {
    wake_.wait(lock, something);
  } else {
    wake_.wait_for(lock,
                   std::chrono::duration<double, std::milli>(std::max(0.0, until_ms - now_ms())),
                   something);
  }
}

}  // namespace fovea
