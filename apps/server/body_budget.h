#pragma once

#include <atomic>
#include <cstddef>

namespace fovea::server {

/// Bounds the memory of all request bodies that are being read. Thread-safe.
class BodyBudget {
 public:
  explicit BodyBudget(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  /// One body's share, given back at the end.
  class Share {
   public:
    explicit Share(BodyBudget& budget) : budget_(budget) {}
    ~Share() { budget_.used_ -= bytes_; }
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;
    /// Grows to `bytes`; false when there is no more for anybody.
    bool grow_to(std::size_t bytes) {
      if (bytes <= bytes_) return true;
      const std::size_t more = bytes - bytes_;
      bytes_ = bytes;
      return budget_.used_.fetch_add(more) + more <= budget_.max_bytes_;
    }

   private:
    BodyBudget& budget_;
    std::size_t bytes_ = 0;
  };

 private:
  const std::size_t max_bytes_;
  std::atomic<std::size_t> used_{0};
};

}  // namespace fovea::server
