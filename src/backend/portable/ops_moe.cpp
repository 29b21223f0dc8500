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
    if (weight == DType::kInt4) return FOVEA_UP(f32_int4);
    return weight == DType::kBf16 ? FOVEA_UP(f32_bf16) : FOVEA_UP(f32_f8);
  }
  FOVEA_CHECK(x == DType::kBf16 && weight != DType::kF32, "x of {}, experts of {}", dtype_name(x),
              dtype_name(weight));
  if (weight == DType::kInt4) return FOVEA_UP(bf16_int4);
  return weight == DType::kBf16 ? FOVEA_UP(bf16_bf16) : FOVEA_UP(bf16_f8);
#undef FOVEA_UP
}

KernelId down_kernel(DType x, DType weight, bool flat) {
#define FOVEA_DOWN(types) \
  (flat ? KernelId::expert_gemm_down_flat_##types : KernelId::expert_gemm_down_tall_##types)
  FOVEA_CHECK(x == DType::kF32, "x of {}", dtype_name(x));
  if (weight == DType::kF32) return FOVEA_DOWN(f32_f32);
  if (weight == DType::kInt4) return FOVEA_DOWN(f32_int4);
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

// What the launches of a call hand on, in one piece of memory. A pair is a row and one of its
// choices; pairs of an expert lie together.
struct PortableOps::ExpertWorkspace {
  TensorView hidden;     // f32 [pairs, 2 inner]
  TensorView gated;      // f32 [pairs, inner]
  TensorView results;    // f32 [pairs, dim]
  std::byte* offsets;    // u32 [experts + 1]: where an expert's pairs begin
  std::byte* places;     // u32 [pairs]: where each pair lies
  std::byte* row_table;  // u32 [pairs]: the row of the pair at each place
};

// The first or the second product of all experts.
struct PortableOps::ExpertsProduct {
  std::span<const std::unique_ptr<const Matrix>> matrices;
  KernelId (*kernel)(DType x, DType weight, bool flat);
  const LoraWeights* lora;  // null: none
  LoraTables lora_tables;
  bool x_by_place;  // a row of x for each pair, where it lies; otherwise the call's rows
  TensorView x, y;
};

std::optional<PortableOps::ExpertWorkspace> PortableOps::expert_workspace(Stream& stream,
                                                                          const ExpertCall& call) {
  const std::int64_t pairs = call.experts.num_elements(), dim = call.x.shape.back();
  const std::int64_t inner = call.down[0]->cols();
  const auto num_experts = static_cast<std::int64_t>(call.up.size());
  const std::int64_t floats = pairs * (3 * inner + dim), numbers = num_experts + 1 + 2 * pairs;
  std::byte* memory =
      expert_memory_.get(launcher_, stream, static_cast<std::size_t>(floats + numbers) * 4);
  if (memory == nullptr) return std::nullopt;
  std::byte* gated = memory + pairs * 2 * inner * 4;
  std::byte* results = gated + pairs * inner * 4;
  std::byte* offsets = memory + floats * 4;
  std::byte* places = offsets + (num_experts + 1) * 4;
  return ExpertWorkspace{.hidden = {DType::kF32, {pairs, 2 * inner}, memory},
                         .gated = {DType::kF32, {pairs, inner}, gated},
                         .results = {DType::kF32, {pairs, dim}, results},
                         .offsets = offsets,
                         .places = places,
                         .row_table = places + pairs * 4};
}

void PortableOps::run_expert_lora(Stream& stream, const LoraWeights& weights,
                                  const LoraTables& tables, TensorView experts, const void* places,
                                  bool x_by_place, TensorView x, TensorView y) {
  run_lora(stream, weights, tables,
           {.x = x,
            .num_pairs = experts.num_elements(),
            .choices = experts.shape.back(),
            .num_experts = weights.a.shape.rank() == 4 ? weights.a.shape[1] : 1,
            .experts = experts.data,
            .places = places,
            .x_by_place = x_by_place,
            .y_by_place = true,
            .y = y});
}

void PortableOps::multiply_experts(Stream& stream, const ExpertCall& call,
                                   const ExpertWorkspace& work, const ExpertsProduct& product) {
  const std::int64_t rows = call.x.shape[0];
  const bool flat = rows <= kMostFlatRows;
  const std::int64_t tile_rows = flat ? kernels::FlatTile::kRows : kernels::TallTile::kRows;
  const std::int64_t tile_cols = flat ? kernels::FlatTile::kCols : kernels::TallTile::kCols;
  const std::size_t scratch =
      flat ? kernels::FlatTile::kScratchBytes : kernels::TallTile::kScratchBytes;
  // The experts of a row are distinct: no expert takes more pairs than there are rows.
  const std::uint32_t row_tiles = narrow(ceil_div(rows, tile_rows));
  std::uint32_t expert = 0;
  for (const std::unique_ptr<const Matrix>& packed : product.matrices) {
    const auto& matrix = static_cast<const DeviceMatrix&>(*packed);
    const TensorView weight = matrix.weight(), scale = matrix.scale();
    launch(stream, product.kernel(product.x.dtype, weight.dtype, flat),
           {narrow(ceil_div(matrix.rows(), tile_cols)), row_tiles}, kThreads, scratch,
           kernels::ExpertGemmParams{narrow(matrix.rows()), narrow(matrix.cols()), expert++,
                                     scale.empty() ? 0 : kernels::kGemmScale},
           {product.x.data, weight.data, scale.data, work.offsets, work.row_table, product.y.data});
  }
  if (product.lora == nullptr) return;
  run_expert_lora(stream, *product.lora, product.lora_tables, call.experts, work.places,
                  product.x_by_place, product.x, product.y);
}

void PortableOps::run_experts(Stream& stream, const ExpertCall& call) {
  const std::optional<ExpertWorkspace> work = expert_workspace(stream, call);
  if (!work) return;
  const std::uint32_t rows = narrow(call.x.shape[0]), k = narrow(call.experts.shape.back());
  const std::uint32_t num_experts = narrow(static_cast<std::int64_t>(call.up.size()));

  kernels::MoeParams moe{rows, k, num_experts, 0};
  launch(stream, KernelId::moe_sort, {1}, kSortThreads,
         static_cast<std::size_t>(2 * (num_experts + 1)) * 4, moe,
         {call.experts.data, work->offsets, work->places, work->row_table});
  multiply_experts(stream, call, *work,
                   {.matrices = call.up,
                    .kernel = up_kernel,
                    .lora = call.lora != nullptr ? &call.lora->up : nullptr,
                    .lora_tables = call.up_tables,
                    .x_by_place = false,
                    .x = call.x,
                    .y = work->hidden});
  moe.width = narrow(work->gated.shape.back());
  launch(stream, KernelId::moe_gate, {rows * k}, kThreads, 0, moe,
         {work->hidden.data, work->gated.data});
  multiply_experts(stream, call, *work,
                   {.matrices = call.down,
                    .kernel = down_kernel,
                    .lora = call.lora != nullptr ? &call.lora->down : nullptr,
                    .lora_tables = call.down_tables,
                    .x_by_place = true,
                    .x = work->gated,
                    .y = work->results});
  moe.width = narrow(call.x.shape.back());
  launch(stream, pick(call.y.dtype, KernelId::moe_combine_f32, KernelId::moe_combine_bf16), {rows},
         kThreads, 0, moe, {work->results.data, work->places, call.weights.data, call.y.data});
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
