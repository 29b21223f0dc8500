#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

namespace fovea {

/// Tasks for the engine thread, in the order in which they were sent. A letter can be made ahead,
/// so that sending it needs no memory: an answer that is owed always arrives. Thread-safe.
class Inbox {
 public:
  struct Letter {
    std::function<void()> task;
    std::shared_ptr<Letter> next{};
  };
  using LetterPtr = std::shared_ptr<Letter>;

  Inbox() = default;
  ~Inbox();
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  /// Sends a task. Throws std::bad_alloc, and then nothing has been sent.
  void post(std::function<void()> task) { send(std::make_shared<Letter>(std::move(task))); }
  /// Sends a letter, once.
  void send(LetterPtr letter) noexcept;

  /// No more waiting: receive() returns at once from now on.
  void close();
  bool is_closed() const;

  /// The oldest letter; null when there is none.
  LetterPtr take() noexcept;
  /// Waits for a letter, the end, or a moment on now_ms()'s clock (infinity: no such moment).
  void wait(double until_ms);

 private:
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  LetterPtr first_;
  Letter* last_ = nullptr;
  bool closed_ = false;
};

}  // namespace fovea
