#include "backend/portable/device_matrix.h"
#include "backend/portable/launch_shape.h"
#include "backend/portable/portable_ops.h"
#include "backend/portable/shapes.h"
#include "base/math.h"
#include "kernels/gemm.h"
#include "kernels/moe.h"

namespace fovea::portable {

using kernels::KernelId;

namespace {

constexpr std::uint32_t kSortThreads = 256;
constexpr std::int64_t kMostChoices = 32;
// Bounds the workspace: 3 inner + dim floats for each pair.
constexpr std::int64_t kMostPairs = 8192;

KernelId up_kernel(DType x, DType weight, bool flat) {
#define FOVEA_UP(types) \
  (flat ? KernelId::expert_gemm_up_flat_##types : KernelId::expert_gemm_up_tall_##types)
  if (x == DType::kF32) {
    if (weight == DType::kF32) return FOVEA_UP(f32_f32);
    return weight == DType::kBf16 ? FOVEA_UP(f32_bf16) : FOVEA_UP(f32_f8);
  }
  FOVEA_CHECK(x == DType::kBf16 && weight != DType::kF32, "x of {}, experts of {}", dtype_name(x),
              dtype_name(weight));
  return weight == DType::kBf16 ? FOVEA_UP(bf16_bf16) : FOVEA_UP(bf16_f8);
#undef FOVEA_UP
}

KernelId down_kernel(DType weight, bool flat) {
#define FOVEA_DOWN(types) \
  (flat ? KernelId::expert_gemm_down_flat_##types : KernelId::expert_gemm_down_tall_##types)
  if (weight == DType::kF32) return FOVEA_DOWN(f32_f32);
  return weight == DType::kBf16 ? FOVEA_DOWN(f32_bf16) : FOVEA_DOWN(f32_f8);
#undef FOVEA_DOWN
}

}  // namespace

void PortableOps::moe_route(Stream& stream, TensorView logits, TensorView experts,
                            TensorView weights) {
  const std::int64_t rows = logits.shape[0], num_experts = logits.shape.back();
  const std::int64_t k = experts.shape.back();
  FOVEA_CHECK(k <= num_experts && k <= kMostChoices && experts.num_elements() == rows * k &&
                  weights.num_elements() == rows * k && logits.dtype == DType::kF32,
              "{} of {} experts", k, num_experts);
  launch(stream, KernelId::moe_route, {narrow(rows)}, 32, 0,
         kernels::MoeParams{narrow(rows), narrow(k), narrow(num_experts), 0},
         {logits.data, experts.data, weights.data});
}

// A block of rows of moe_mlp.
struct PortableOps::ExpertCall {
  TensorView x, experts, weights;
  std::span<const std::unique_ptr<const Matrix>> up, down;
  const MoeLora* lora;  // null: none
  LoraTables up_tables, down_tables;
  TensorView y;
};

void PortableOps::run_experts(Stream& stream, const ExpertCall& call) {
  const std::int64_t rows = call.x.shape[0], dim = call.x.shape.back();
  const std::int64_t k = call.experts.shape.back(), pairs = rows * k;
  const auto num_experts = static_cast<std::int64_t>(call.up.size());
  const std::int64_t inner = call.down[0]->cols();

  // Floats: hidden [pairs, 2 inner], gated [pairs, inner], results [pairs, dim]; numbers: offsets
  // [experts + 1], places [pairs], rows [pairs].
  const std::int64_t floats = pairs * (3 * inner + dim), numbers = num_experts + 1 + 2 * pairs;
  std::byte* memory =
      expert_memory_.get(launcher_, stream, static_cast<std::size_t>(floats + numbers) * 4);
  if (memory == nullptr) return;
  std::byte* gated = memory + pairs * 2 * inner * 4;
  std::byte* results = gated + pairs * inner * 4;
  std::byte* offsets = memory + floats * 4;
  std::byte* places = offsets + (num_experts + 1) * 4;
  std::byte* row_table = places + pairs * 4;

  kernels::MoeParams moe{narrow(rows), narrow(k), narrow(num_experts), 0};
  launch(stream, KernelId::moe_sort, {1}, kSortThreads,
         static_cast<std::size_t>(2 * (num_experts + 1)) * 4, moe,
         {call.experts.data, offsets, places, row_table});

  const bool flat = rows <= kMostFlatRows;
  const std::int64_t tile_rows = flat ? kernels::FlatTile::kRows : kernels::TallTile::kRows;
  const std::int64_t tile_cols = flat ? kernels::FlatTile::kCols : kernels::TallTile::kCols;
  const std::size_t scratch =
      flat ? kernels::FlatTile::kScratchBytes : kernels::TallTile::kScratchBytes;
  // The experts of a row are distinct: no expert takes more pairs than there are rows.
  const std::uint32_t row_tiles = narrow(ceil_div(rows, tile_rows));
  const auto multiply = [&](const Matrix& packed, std::int64_t expert, KernelId kernel,
                            const void* x, void* y) {
    const auto& matrix = static_cast<const DeviceMatrix&>(packed);
    const TensorView scale = matrix.scale();
    launch(stream, kernel, {narrow(ceil_div(matrix.rows(), tile_cols)), row_tiles}, kThreads,
           scratch,
           kernels::ExpertGemmParams{narrow(matrix.rows()), narrow(matrix.cols()), narrow(expert),
                                     scale.empty() ? 0 : kernels::kGemmScale},
           {x, matrix.weight().data, scale.data, offsets, row_table, y});
  };
  const auto storage = [](const Matrix& packed) {
    return static_cast<const DeviceMatrix&>(packed).weight().dtype;
  };
  for (std::int64_t e = 0; e < num_experts; ++e) {
    const Matrix& up = *call.up[static_cast<std::size_t>(e)];
    multiply(up, e, up_kernel(call.x.dtype, storage(up), flat), call.x.data, memory);
  }
  const TensorView hidden{DType::kF32, {pairs, 2 * inner}, memory};
  const TensorView gate{DType::kF32, {pairs, inner}, gated};
  const TensorView out{DType::kF32, {pairs, dim}, results};
  if (call.lora != nullptr) {
    run_lora(stream, call.lora->up, call.up_tables,
             {.x = call.x,
              .num_pairs = pairs,
              .choices = k,
              .num_experts = num_experts,
              .experts = call.experts.data,
              .places = places,
              .x_by_place = false,
              .y_by_place = true,
              .y = hidden});
  }
  moe.width = narrow(inner);
  launch(stream, KernelId::moe_gate, {narrow(pairs)}, kThreads, 0, moe, {memory, gated});
  for (std::int64_t e = 0; e < num_experts; ++e) {
    const Matrix& down = *call.down[static_cast<std::size_t>(e)];
    multiply(down, e, down_kernel(storage(down), flat), gated, results);
  }
  if (call.lora != nullptr) {
    run_lora(stream, call.lora->down, call.down_tables,
             {.x = gate,
              .num_pairs = pairs,
              .choices = k,
              .num_experts = num_experts,
              .experts = call.experts.data,
              .places = places,
              .x_by_place = true,
              .y_by_place = true,
              .y = out});
  }
  moe.width = narrow(dim);
  launch(stream, pick(call.y.dtype, KernelId::moe_combine_f32, KernelId::moe_combine_bf16),
         {narrow(rows)}, kThreads, 0, moe, {results, places, call.weights.data, call.y.data});
}

void PortableOps::moe_mlp(Stream& stream, TensorView x, TensorView experts, TensorView weights,
                          std::span<const std::unique_ptr<const Matrix>> up,
                          std::span<const std::unique_ptr<const Matrix>> down, const MoeLora* lora,
                          TensorView y) {
  const std::int64_t rows = x.shape[0], k = experts.shape.back();
  FOVEA_CHECK(!up.empty() && up.size() == down.size(), "{} up, {} down", up.size(), down.size());
  FOVEA_CHECK(experts.num_elements() == rows * k && weights.num_elements() == rows * k &&
                  y.num_elements() == x.num_elements(),
              "x {}, experts {}, y {}", x.shape.to_string(), experts.shape.to_string(),
              y.shape.to_string());
  for (std::size_t e = 0; e < up.size(); ++e) {
    FOVEA_CHECK(up[e]->cols() == x.shape.back() && up[e]->rows() == 2 * down[e]->cols() &&
                    down[e]->rows() == x.shape.back() && down[e]->cols() == down[0]->cols(),
                "expert {}: up {} x {}, down {} x {}", e, up[e]->rows(), up[e]->cols(),
                down[e]->rows(), down[e]->cols());
  }
  const std::int64_t step = std::max<std::int64_t>(1, kMostPairs / k);
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t count = std::min(step, rows - begin);
    ExpertCall call{x.rows(begin, count),
                    experts.rows(begin, count),
                    weights.rows(begin, count),
                    up,
                    down,
                    lora,
                    {},
                    {},
                    y.rows(begin, count)};
    if (lora != nullptr) {
      call.up_tables =
          put_lora_tables(stream, expert_up_table_, lora->up, lora->batch, rows, begin, count);
      call.down_tables =
          put_lora_tables(stream, expert_down_table_, lora->down, lora->batch, rows, begin, count);
    }
    run_experts(stream, call);
  }
}

}  // namespace fovea::portable
