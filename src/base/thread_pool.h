#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace fovea {

/// Fixed worker threads for data-parallel loops. The caller works too, so ThreadPool(1) starts no
/// thread at all. One parallel_for runs at a time; calls from several threads take turns. Loops
/// must not nest.
class ThreadPool {
 public:
  /// num_threads >= 1, the caller included.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(index, thread_idx) for every index in [0, count), each once, in chunks that threads
  /// take as they come free. thread_idx is in [0, num_threads()). Returns when all are done. What
  /// `body` throws ends the loop early, and the first of it is thrown here.
  void parallel_for(std::int64_t count, const std::function<void(std::int64_t, int)>& body);

 private:
  struct Job;
  void worker_loop(int thread_idx);

  std::vector<std::jthread> workers_;
  std::mutex callers_;  // held by the caller whose loop is running
  std::mutex mutex_;    // guards the four below
  std::condition_variable wake_;
  std::condition_variable done_;
  Job* job_ = nullptr;
  std::uint64_t generation_ = 0;
  bool stopping_ = false;
};

/// The number of processors that this process may use, at least 1.
int usable_processors();

}  // namespace fovea
