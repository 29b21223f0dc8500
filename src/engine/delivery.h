#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "fovea/engine.h"
#include "fovea/response.h"
#include "fovea/result.h"

#include "engine/request_log.h"

namespace fovea {

/// Tells callers what became of their requests, on a thread of its own, so that a slow caller holds
/// nobody up; writes the request log. In the order in which things were handed over.
class Delivery {
 public:
  /// What is told to one caller: a piece of text, or how the request ended.
  struct Message {
    std::uint64_t id = 0;
    std::shared_ptr<const Callbacks> callbacks;
    std::string text{};
    std::optional<Result<Response>> answer{};
    RequestRecord record{};  ///< with an answer: for the log; its usage when there is an error

    std::unique_ptr<Message> next{};
  };

  /// `refused` is told the id of a request whose caller wants no more text, or threw. It must not
  /// throw.
  Delivery(std::optional<RequestLog> log, std::function<void(std::uint64_t id)> refused);
  /// Returns when everybody has been told.
  ~Delivery();
  Delivery(const Delivery&) = delete;
  Delivery& operator=(const Delivery&) = delete;

  /// Hands over a message that was made before: it takes no memory. Any thread.
  void send(std::unique_ptr<Message> message) noexcept;

 private:
  void work();
  void tell(Message& message);

  std::optional<RequestLog> log_;
  std::function<void(std::uint64_t)> refused_;
  std::mutex mutex_;  // guards the four below
  std::condition_variable wake_;
  std::unique_ptr<Message> first_;
  Message* last_ = nullptr;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace fovea
