#include <algorithm>
#include <tuple>

#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/lora_rows.h"
#include "backend/cpu/parallel_rows.h"
#include "base/check.h"
#include "base/math.h"

namespace fovea::cpu {
namespace {

// Rows of a block: their inputs stay in the second-level cache while ranks pass by.
constexpr std::int64_t kBlockRows = 32;
// What one piece of a block computes: ranks of a shrink, columns of an expand.
constexpr std::int64_t kRanksAtOnce = 8;
constexpr std::int64_t kColsAtOnce = 512;

std::int64_t num_experts_of(const LoraWeights& weights) {
  return weights.a.shape.rank() == 4 ? weights.a.shape[1] : 1;
}

std::int64_t max_rank_of(const TensorView& weights) {
  return weights.shape[weights.shape.rank() - 2];
}

}  // namespace

void check_lora(const LoraWeights& weights, std::int64_t num_experts, std::int64_t num_inputs,
                std::int64_t num_outputs) {
  const TensorView& a = weights.a;
  const TensorView& b = weights.b;
  const auto slots = static_cast<std::int64_t>(weights.ranks.size());
  FOVEA_CHECK((a.dtype == DType::kF32 || a.dtype == DType::kBf16) && b.dtype == a.dtype,
              "adapters of {} and {}", dtype_name(a.dtype), dtype_name(b.dtype));
  FOVEA_CHECK(a.shape.rank() >= 3 && a.shape.rank() == b.shape.rank() && a.shape[0] == slots &&
                  b.shape[0] == slots && num_experts_of(weights) == num_experts &&
                  b.num_elements() == slots * num_experts * max_rank_of(a) * num_outputs &&
                  a.shape.back() == num_inputs && b.shape.back() == num_outputs,
              "a {}, b {} for {} slots of {} experts, {} inputs, {} outputs", a.shape.to_string(),
              b.shape.to_string(), slots, num_experts, num_inputs, num_outputs);
  for (const std::int32_t rank : weights.ranks) {
    FOVEA_CHECK(rank >= 0 && rank <= max_rank_of(a), "rank {} of {}", rank, max_rank_of(a));
  }
}

void CpuOps::group_lora_rows() {
  std::sort(lora_rows_.begin(), lora_rows_.end(), [](const LoraRow& a, const LoraRow& b) {
    return std::tie(a.matrix, a.y_row) < std::tie(b.matrix, b.y_row);
  });
}

void CpuOps::run_lora(const LoraWeights& weights, const float* x, std::int64_t x_stride, float* y,
                      std::int64_t y_stride) {
  const std::int64_t num_experts = num_experts_of(weights);
  const std::int64_t max_rank = max_rank_of(weights.a);
  const std::int64_t num_inputs = weights.a.shape.back();
  const std::int64_t num_outputs = weights.b.shape.back();
  const auto num_rows = static_cast<std::int64_t>(lora_rows_.size());

  lora_blocks_.clear();
  std::int64_t largest_rank = 0, block_rows = 0;
  for (std::int64_t first = 0; first < num_rows;) {
    const std::int64_t matrix = lora_rows_[static_cast<std::size_t>(first)].matrix;
    std::int64_t end = first + 1;
    while (end < num_rows && end - first < kBlockRows &&
           lora_rows_[static_cast<std::size_t>(end)].matrix == matrix) {
      ++end;
    }
    const std::int64_t slot = matrix / num_experts;
    FOVEA_CHECK(slot < static_cast<std::int64_t>(weights.ranks.size()), "adapter slot {} of {}",
                slot, weights.ranks.size());
    const std::int64_t rank = weights.ranks[static_cast<std::size_t>(slot)];
    if (rank > 0) lora_blocks_.push_back({first, end - first, matrix, rank});
    largest_rank = std::max(largest_rank, rank);
    block_rows = std::max(block_rows, end - first);
    first = end;
  }
  if (lora_blocks_.empty()) return;
  float* hidden = lora_hidden_memory_.get<float>(static_cast<std::size_t>(num_rows * largest_rank));
  const std::int32_t is_bf16 = weights.a.dtype == DType::kBf16 ? 1 : 0;
  const auto matrix_of = [&](const TensorView& all, std::int64_t matrix) -> const void* {
    const std::int64_t elements = max_rank * all.shape.back();
    return all.data + static_cast<std::size_t>(matrix * elements) * dtype_size(all.dtype);
  };
  // Pieces of all blocks: `at_once` of `extent`, run(block, begin, end).
  const auto each_piece = [&](std::int64_t extent, std::int64_t at_once, std::int64_t depth,
                              const auto& run) {
    const std::int64_t pieces = ceil_div(extent, at_once);
    const std::int64_t cost = at_once * depth * ceil_div(block_rows, std::int64_t{4});
    const auto count = static_cast<std::int64_t>(lora_blocks_.size()) * pieces;
    parallel_rows(pool_, count, cost, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t piece = i % pieces * at_once;
        run(lora_blocks_[static_cast<std::size_t>(i / pieces)], piece,
            std::min(extent, piece + at_once));
      }
    });
  };
  each_piece(largest_rank, kRanksAtOnce, num_inputs,
             [&](const LoraBlock& block, std::int64_t begin, std::int64_t end) {
               if (begin >= block.rank) return;
               const LoraShrinkArgs args{lora_rows_.data() + block.first_row,
                                         block.num_rows,
                                         x,
                                         x_stride,
                                         matrix_of(weights.a, block.matrix),
                                         is_bf16,
                                         num_inputs,
                                         hidden + block.first_row * largest_rank,
                                         largest_rank};
               kernels_.lora_shrink(&args, begin, std::min(end, block.rank));
             });
  each_piece(num_outputs, kColsAtOnce, largest_rank,
             [&](const LoraBlock& block, std::int64_t begin, std::int64_t end) {
               const LoraExpandArgs args{lora_rows_.data() + block.first_row,
                                         block.num_rows,
                                         hidden + block.first_row * largest_rank,
                                         largest_rank,
                                         matrix_of(weights.b, block.matrix),
                                         is_bf16,
                                         block.rank,
                                         num_outputs,
                                         y,
                                         y_stride};
               kernels_.lora_expand(&args, begin, end);
             });
}

void CpuOps::lora(Stream&, const LoraArgs& args) {
  const std::int64_t rows = args.x.shape[0];
  const std::int64_t num_inputs = args.x.shape.back(), num_outputs = args.y.shape.back();
  FOVEA_CHECK(args.x.dtype == DType::kF32 && args.y.dtype == DType::kF32, "activations are f32");
  FOVEA_CHECK(args.y.shape[0] == rows, "x {}, y {}", args.x.shape.to_string(),
              args.y.shape.to_string());
  check_lora(args.weights, 1, num_inputs, num_outputs);
  lora_rows_.clear();
  each_lora_row(args.batch, rows, [&](std::int64_t row, std::int32_t slot) {
    const auto index = static_cast<std::int32_t>(row);
    lora_rows_.push_back({slot, index, index});
  });
  group_lora_rows();
  run_lora(args.weights, args.x.as<float>(), num_inputs, args.y.as<float>(), num_outputs);
}

}  // namespace fovea::cpu
