#include "base/thread_pool.h"

#include <atomic>
#include <exception>
#include <sched.h>

#include "base/check.h"

namespace fovea {

// One loop in progress. Threads take the next index from `next`; the caller waits until `active`
// workers have left.
struct ThreadPool::Job {
  std::int64_t count;
  const std::function<void(std::int64_t, int)>* body;
  std::atomic<std::int64_t> next{0};
  int active = 0;  // workers inside this job, guarded by mutex_
  std::mutex failed{};
  std::exception_ptr failure{};  // the first

  void run(int thread_idx) {
    for (;;) {
      const std::int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      try {
        (*body)(index, thread_idx);
      } catch (...) {
        next.store(count, std::memory_order_relaxed);  // nobody begins another one
        const std::lock_guard lock(failed);
        if (failure == nullptr) failure = std::current_exception();
      }
    }
  }
};

ThreadPool::ThreadPool(int num_threads) {
  FOVEA_CHECK(num_threads >= 1, "num_threads {}", num_threads);
  for (int i = 1; i < num_threads; ++i) {
    workers_.emplace_back([this, i] { worker_loop(i); });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
}

void ThreadPool::worker_loop(int thread_idx) {
  std::uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || (job_ != nullptr && generation_ != seen); });
    if (stopping_) return;
    seen = generation_;
    Job& job = *job_;
    ++job.active;
    lock.unlock();
    job.run(thread_idx);
    lock.lock();
    if (--job.active == 0) done_.notify_one();
  }
}

void ThreadPool::parallel_for(std::int64_t count,
                              const std::function<void(std::int64_t, int)>& body) {
  if (count <= 0) return;
  if (workers_.empty() || count == 1) {
    for (std::int64_t i = 0; i < count; ++i) body(i, 0);
    return;
  }
  std::lock_guard turn(callers_);
  Job job{count, &body};
  {
    std::lock_guard lock(mutex_);
    job_ = &job;
    ++generation_;
  }
  wake_.notify_all();
  job.run(0);
  std::unique_lock lock(mutex_);
  job_ = nullptr;  // no worker can enter any more
  done_.wait(lock, [&] { return job.active == 0; });
  if (job.failure != nullptr) std::rethrow_exception(job.failure);
}

int usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  const int count = CPU_COUNT(&set);
  return count > 0 ? count : 1;
}

}  // namespace fovea
