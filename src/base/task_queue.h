#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace fovea {

/// Threads that run tasks in the order in which they were posted; with one thread, one after the
/// other. Tasks must not throw. Thread-safe.
class TaskQueue {
 public:
  /// num_threads >= 1.
  explicit TaskQueue(int num_threads);
  /// Runs what has been posted, then stops.
  ~TaskQueue();
  TaskQueue(const TaskQueue&) = delete;
  TaskQueue& operator=(const TaskQueue&) = delete;

  /// A task may post further ones, but not while the queue is being destroyed.
  void post(std::function<void()> task);

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace fovea
