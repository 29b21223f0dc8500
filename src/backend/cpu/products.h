#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/cpu/aligned_memory.h"
#include "backend/cpu/isa/kernel_table.h"
#include "base/thread_pool.h"

namespace fovea::cpu {

/// The fixed scratch of each thread, as large as any kernel wants. Allocated once.
class ThreadScratch {
 public:
  /// False when there is no memory.
  bool allocate(int num_threads, std::int64_t floats_per_thread);
  float* of(int thread_idx) const { return data_ + floats_per_thread_ * thread_idx; }

 private:
  AlignedMemory memory_;
  float* data_ = nullptr;
  std::int64_t floats_per_thread_ = 0;
};

/// Runs products as one parallel loop over blocks of rows x panels of all of them. One call at a
/// time.
class ProductRunner {
 public:
  ProductRunner(ThreadPool& pool, const KernelTable& kernels, const ThreadScratch& scratch)
      : pool_(pool), kernels_(kernels), scratch_(scratch) {}

  void run(std::span<const GemmArgs> products);

 private:
  // How one product is cut: items are row_blocks x panel_blocks, rows innermost so that threads
  // that work side by side read the same panels.
  struct Plan {
    std::int64_t first_item;
    std::int64_t rows;  // per block
    std::int64_t row_blocks;
    std::int64_t panels;  // per block
    std::int64_t panel_blocks;
  };

  Plan plan_streamed(const GemmArgs& product, std::int64_t first_item) const;
  Plan plan_tiled(const GemmArgs& product, std::int64_t first_item) const;
  void run_item(const GemmArgs& product, const Plan& plan, std::int64_t item, float* scratch) const;

  ThreadPool& pool_;
  const KernelTable& kernels_;
  const ThreadScratch& scratch_;
  std::vector<Plan> plans_;  // keeps its capacity
};

}  // namespace fovea::cpu
