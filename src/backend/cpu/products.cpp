#include "backend/cpu/products.h"

#include <algorithm>
#include <functional>

#include "base/math.h"

namespace fovea::cpu {

bool ThreadScratch::allocate(int num_threads, std::int64_t floats_per_thread) {
  // Whole cache lines: threads must not share one.
  floats_per_thread_ = round_up(floats_per_thread, std::int64_t{16});
  memory_ =
      allocate_aligned(static_cast<std::size_t>(floats_per_thread_ * num_threads) * sizeof(float));
  data_ = reinterpret_cast<float*>(memory_.get());
  return memory_ != nullptr;
}

ProductRunner::Plan ProductRunner::plan_streamed(const GemmArgs& product,
                                                 std::int64_t first_item) const {
  const std::int64_t num_panels = ceil_div(product.n, std::int64_t{kernels_.panel_cols});
  // Enough pieces to level out threads of different speed, none too small to be worth taking.
  const std::int64_t panel_weights = std::max<std::int64_t>(1, product.k * kernels_.panel_cols);
  const std::int64_t smallest = ceil_div(std::int64_t{32768}, panel_weights);
  const std::int64_t fair = ceil_div(num_panels, std::int64_t{8} * pool_.num_threads());
  std::int64_t panels = std::max(smallest, fair);
  if (panels > 4) panels = round_up(panels, std::int64_t{4});  // the kernel takes them in fours
  return {first_item, product.m, 1, panels, ceil_div(num_panels, panels)};
}

ProductRunner::Plan ProductRunner::plan_tiled(const GemmArgs& product,
                                              std::int64_t first_item) const {
  const std::int64_t num_panels = ceil_div(product.n, std::int64_t{kernels_.panel_cols});
  const std::int64_t row_blocks = ceil_div(product.m, std::int64_t{kernels_.block_rows});
  const std::int64_t rows =
      round_up(ceil_div(product.m, row_blocks), std::int64_t{kernels_.row_step});
  const std::int64_t threads = pool_.num_threads();
  const std::int64_t wanted = threads == 1 ? 1 : 4 * threads;
  // Narrow blocks pack the rows of x more often, so no narrower than 8 panels.
  std::int64_t panel_blocks = ceil_div(num_panels, std::int64_t{kernels_.block_panels});
  const std::int64_t most = std::max<std::int64_t>(panel_blocks, num_panels / 8);
  panel_blocks = std::clamp(ceil_div(wanted, row_blocks), panel_blocks, most);
  const std::int64_t panels = ceil_div(num_panels, panel_blocks);
  return {first_item, rows, ceil_div(product.m, rows), panels, ceil_div(num_panels, panels)};
}

void ProductRunner::run_item(const GemmArgs& product, const Plan& plan, std::int64_t item,
                             float* scratch) const {
  const std::int64_t num_panels = ceil_div(product.n, std::int64_t{kernels_.panel_cols});
  const std::int64_t panel = item / plan.row_blocks * plan.panels;
  const std::int64_t panel_end = std::min(num_panels, panel + plan.panels);
  if (product.m <= kMaxStreamRows) {
    kernels_.gemm_stream(&product, panel, panel_end, scratch);
    return;
  }
  const std::int64_t row = item % plan.row_blocks * plan.rows;
  kernels_.gemm_tile(&product, row, std::min(product.m, row + plan.rows), panel, panel_end,
                     scratch);
}

void ProductRunner::run(std::span<const GemmArgs> products) {
  plans_.clear();
  std::int64_t num_items = 0;
  for (const GemmArgs& product : products) {
    const bool streamed = product.m <= kMaxStreamRows;
    Plan plan = streamed ? plan_streamed(product, num_items) : plan_tiled(product, num_items);
    if (product.m == 0) plan.row_blocks = 0;
    plans_.push_back(plan);
    num_items += plan.row_blocks * plan.panel_blocks;
  }
  const auto run_one = [&](std::int64_t item, int thread_idx) {
    const auto after = std::upper_bound(
        plans_.begin(), plans_.end(), item,
        [](std::int64_t value, const Plan& plan) { return value < plan.first_item; });
    const auto index = static_cast<std::size_t>(after - plans_.begin() - 1);
    run_item(products[index], plans_[index], item - plans_[index].first_item,
             scratch_.of(thread_idx));
  };
  pool_.parallel_for(num_items, std::ref(run_one));
}

}  // namespace fovea::cpu
