#include "backend/portable/device_matrix.h"
#include "backend/portable/launch_shape.h"
#include "backend/portable/portable_ops.h"
#include "backend/portable/shapes.h"
#include "base/math.h"
#include "base/try.h"
#include "kernels/gemm.h"
#include "kernels/lora.h"

namespace fovea::portable {

using kernels::KernelId;

namespace {

// The entry for x, weight and y of these types.
KernelId gemm_kernel(DType x, DType weight, DType y, bool flat) {
#define FOVEA_GEMM(types) (flat ? KernelId::gemm_flat_##types : KernelId::gemm_tall_##types)
  if (x == DType::kF32 && y == DType::kF32) {
    if (weight == DType::kF32) return FOVEA_GEMM(f32_f32_f32);
    if (weight == DType::kBf16) return FOVEA_GEMM(f32_bf16_f32);
    if (weight == DType::kInt4) return FOVEA_GEMM(f32_int4_f32);
    return FOVEA_GEMM(f32_f8_f32);
  }
  FOVEA_CHECK(x == DType::kBf16 && weight != DType::kF32, "x of {}, weight of {}, y of {}",
              dtype_name(x), dtype_name(weight), dtype_name(y));
  if (weight == DType::kBf16) {
    return y == DType::kBf16 ? FOVEA_GEMM(bf16_bf16_bf16) : FOVEA_GEMM(bf16_bf16_f32);
  }
  if (weight == DType::kInt4) {
    return y == DType::kBf16 ? FOVEA_GEMM(bf16_int4_bf16) : FOVEA_GEMM(bf16_int4_f32);
  }
  return y == DType::kBf16 ? FOVEA_GEMM(bf16_f8_bf16) : FOVEA_GEMM(bf16_f8_f32);
#undef FOVEA_GEMM
}

}  // namespace

PortableOps::PortableOps(Device& device, Launcher& launcher)
    : device_(device),
      launcher_(launcher),
      attention_table_(device),
      lora_table_(device),
      expert_up_table_(device),
      expert_down_table_(device),
      page_table_(device),
      sample_table_(device),
      lora_hidden_(device),
      expert_memory_(device),
      sample_memory_(device) {}

Result<std::unique_ptr<PortableOps>> PortableOps::create(Device& device, Launcher& launcher) {
  return std::unique_ptr<PortableOps>(new PortableOps(device, launcher));
}

void PortableOps::launch_bytes(Stream& stream, KernelId kernel, Grid grid, std::uint32_t threads,
                               std::size_t shared_bytes, std::span<const std::byte> params,
                               std::initializer_list<const void*> buffers) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  void* pointers[16];
  FOVEA_CHECK(buffers.size() <= std::size(pointers), "{} buffers", buffers.size());
  std::size_t count = 0;
  // What a kernel only reads it declares const itself.
  for (const void* buffer : buffers) pointers[count++] = const_cast<void*>(buffer);
  launcher_.launch(stream, {kernel, grid, threads, shared_bytes, params, {pointers, count}});
}

DType PortableOps::activation_dtype(DType storage) const {
  return storage == DType::kF32 ? DType::kF32 : DType::kBf16;
}

Result<Stream*> PortableOps::load_stream() {
  if (load_stream_ == nullptr) {
    FOVEA_TRY(load_stream_, device_.make_stream());
  }
  return load_stream_.get();
}

Result<std::unique_ptr<const Matrix>> PortableOps::pack(const MatrixSource& source, DType storage) {
  FOVEA_TRY(Stream * stream, load_stream());
  if (storage == DType::kInt4) {
    if (load_pool_ == nullptr) load_pool_ = std::make_unique<ThreadPool>(usable_processors());
    return DeviceMatrix::pack_int4(source, device_, *stream, *load_pool_);
  }
  return DeviceMatrix::pack(source, storage, device_, *stream);
}

void check_linear(const LinearArgs& args) {
  FOVEA_CHECK(args.weight != nullptr, "linear without a weight");
  const std::int64_t rows = args.x.shape[0], n = args.weight->rows(), k = args.weight->cols();
  FOVEA_CHECK(args.x.num_elements() == rows * k, "x {} for a weight of {} columns",
              args.x.shape.to_string(), k);
  FOVEA_CHECK(args.y.num_elements() == rows * n, "y {} for a weight of {} rows",
              args.y.shape.to_string(), n);
  FOVEA_CHECK(args.bias.empty() || args.bias.num_elements() == n, "bias {} for {} rows",
              args.bias.shape.to_string(), n);
  const std::int64_t add_rows = args.add.empty() ? 1 : args.add.shape[0];
  FOVEA_CHECK(args.add.empty() || (args.add.num_elements() == add_rows * n &&
                                   (rows == 0 || (add_rows > 0 && rows % add_rows == 0))),
              "add {} for y {}", args.add.shape.to_string(), args.y.shape.to_string());
  const bool adds_f32 = !args.add.empty() && args.add.dtype == DType::kF32;
  FOVEA_CHECK(args.add.empty() || adds_f32 || args.add.dtype == args.y.dtype, "add of {}, y of {}",
              dtype_name(args.add.dtype), dtype_name(args.y.dtype));
  FOVEA_CHECK(args.activated.empty() || (args.activated.num_elements() == args.y.num_elements() &&
                                         args.activated.dtype == args.y.dtype),
              "activated {}, y {}", args.activated.shape.to_string(), args.y.shape.to_string());
}

void PortableOps::linear(Stream& stream, const LinearArgs& args) {
  check_linear(args);
  const auto& matrix = static_cast<const DeviceMatrix&>(*args.weight);
  const TensorView weight = matrix.weight(), scale = matrix.scale();
  const std::int64_t rows = args.x.shape[0], n = matrix.rows(), k = matrix.cols();
  const std::int64_t add_rows = args.add.empty() ? 1 : args.add.shape[0];
  const bool adds_f32 = !args.add.empty() && args.add.dtype == DType::kF32;
  std::uint32_t flags = 0;
  if (!scale.empty()) flags |= kernels::kGemmScale;
  if (!args.bias.empty()) flags |= kernels::kGemmBias;
  if (!args.add.empty()) flags |= adds_f32 ? kernels::kGemmAddF32 : kernels::kGemmAddSame;
  const bool flat = rows <= kMostFlatRows;
  const std::int64_t tile_rows = flat ? kernels::FlatTile::kRows : kernels::TallTile::kRows;
  const std::int64_t tile_cols = flat ? kernels::FlatTile::kCols : kernels::TallTile::kCols;
  launch(stream, gemm_kernel(args.x.dtype, weight.dtype, args.y.dtype, flat),
         {narrow(ceil_div(n, tile_cols)), narrow(ceil_div(rows, tile_rows))}, kThreads,
         flat ? kernels::FlatTile::kScratchBytes : kernels::TallTile::kScratchBytes,
         kernels::GemmParams{narrow(rows), narrow(n), narrow(k), flags,
                             static_cast<std::uint32_t>(args.activation), narrow(add_rows), 0, 0},
         {args.x.data, weight.data, scale.data, args.bias.data, adds_f32 ? args.add.data : nullptr,
          adds_f32 ? nullptr : args.add.data, args.y.data});
  if (!args.activated.empty()) activate(stream, args.y, args.activated_by, args.activated);
}

namespace {

// Aborts unless the shapes fit a linear of these sizes; num_experts is 1 for a dense one.
void check_lora(const LoraWeights& weights, std::int64_t num_experts, std::int64_t num_inputs,
                std::int64_t num_outputs) {
  const auto slots = static_cast<std::int64_t>(weights.ranks.size());
  const std::int64_t max_rank = weights.a.shape[weights.a.shape.rank() - 2];
  const DType type = weights.a.dtype;
  FOVEA_CHECK((type == DType::kF32 || type == DType::kBf16) && weights.b.dtype == type,
              "adapters of {} and {}", dtype_name(type), dtype_name(weights.b.dtype));
  FOVEA_CHECK(weights.a.num_elements() == slots * num_experts * max_rank * num_inputs &&
                  weights.b.num_elements() == slots * num_experts * max_rank * num_outputs,
              "a {}, b {} for {} slots of {} to {}", weights.a.shape.to_string(),
              weights.b.shape.to_string(), slots, num_inputs, num_outputs);
}

}  // namespace

PortableOps::LoraTables PortableOps::put_lora_tables(Stream& stream, DeviceTable& table,
                                                     const LoraWeights& weights,
                                                     const LoraBatch& batch, std::int64_t num_rows,
                                                     std::int64_t first_row, std::int64_t count) {
  FOVEA_CHECK(batch.query_start.size() == batch.slots.size() + 1, "{} slots, {} row offsets",
              batch.slots.size(), batch.query_start.size());
  FOVEA_CHECK(batch.query_start.front() >= 0 && batch.query_start.back() <= num_rows,
              "rows {} to {} of {}", batch.query_start.front(), batch.query_start.back(), num_rows);
  LoraTables tables{};
  numbers_.assign(static_cast<std::size_t>(count), -1);
  for (std::size_t s = 0; s < batch.slots.size(); ++s) {
    const std::int32_t slot = batch.slots[s];
    if (slot < 0) continue;
    FOVEA_CHECK(static_cast<std::size_t>(slot) < weights.ranks.size(), "adapter slot {} of {}",
                slot, weights.ranks.size());
    const std::int64_t begin = std::max<std::int64_t>(batch.query_start[s], first_row);
    const std::int64_t end = std::min<std::int64_t>(batch.query_start[s + 1], first_row + count);
    for (std::int64_t row = begin; row < end; ++row) {
      numbers_[static_cast<std::size_t>(row - first_row)] = slot;
      tables.largest_rank =
          std::max(tables.largest_rank, weights.ranks[static_cast<std::size_t>(slot)]);
    }
  }
  if (tables.largest_rank == 0) return tables;
  numbers_.insert(numbers_.end(), weights.ranks.begin(), weights.ranks.end());
  tables.row_slots = table.put(launcher_, stream, std::as_bytes(std::span(numbers_)));
  if (tables.row_slots == nullptr) return {};
  tables.ranks = tables.row_slots + static_cast<std::size_t>(count) * sizeof(std::int32_t);
  return tables;
}

void PortableOps::run_lora(Stream& stream, const LoraWeights& weights, const LoraTables& tables,
                           const LoraCall& call) {
  if (tables.largest_rank == 0) return;
  const std::int64_t stride = tables.largest_rank;
  std::byte* hidden = lora_hidden_.get(
      launcher_, stream, static_cast<std::size_t>(call.num_pairs * stride) * sizeof(float));
  if (hidden == nullptr) return;
  const bool is_f32 = weights.a.dtype == DType::kF32;
  const KernelId shrink =
      is_f32 ? pick(call.x.dtype, KernelId::lora_shrink_f32_f32, KernelId::lora_shrink_bf16_f32)
             : pick(call.x.dtype, KernelId::lora_shrink_f32_bf16, KernelId::lora_shrink_bf16_bf16);
  const KernelId expand =
      is_f32 ? pick(call.y.dtype, KernelId::lora_expand_f32_f32, KernelId::lora_expand_bf16_f32)
             : pick(call.y.dtype, KernelId::lora_expand_f32_bf16, KernelId::lora_expand_bf16_bf16);
  const std::uint32_t pairs = narrow(call.num_pairs);
  // Of few pairs each warp has one rank; many fill a device as they are.
  constexpr std::uint32_t kFewPairs = 1024, kWarps = kThreads / kernels::kWarpSize;
  const std::uint32_t rank_blocks = pairs > kFewPairs ? 1 : ceil_div(narrow(stride), kWarps);
  kernels::LoraParams params{narrow(call.x.shape.back()),
                             narrow(weights.a.shape[weights.a.shape.rank() - 2]),
                             narrow(call.choices),
                             narrow(call.num_experts),
                             narrow(stride),
                             call.x_by_place ? 1u : 0u,
                             rank_blocks,
                             0};
  launch(stream, shrink, {pairs, rank_blocks}, kThreads, 0, params,
         {call.x.data, weights.a.data, tables.row_slots, tables.ranks, call.experts, call.places,
          hidden});
  params.width = narrow(call.y.shape.back());
  params.by_place = call.y_by_place ? 1u : 0u;
  launch(stream, expand, {pairs, ceil_div(params.width, kThreads)}, kThreads, 0, params,
         {hidden, weights.b.data, tables.row_slots, tables.ranks, call.experts, call.places,
          call.y.data});
}

void PortableOps::lora(Stream& stream, const LoraArgs& args) {
  const std::int64_t rows = args.x.shape[0];
  FOVEA_CHECK(args.y.shape[0] == rows, "x {}, y {}", args.x.shape.to_string(),
              args.y.shape.to_string());
  check_lora(args.weights, 1, args.x.shape.back(), args.y.shape.back());
  const LoraTables tables =
      put_lora_tables(stream, lora_table_, args.weights, args.batch, rows, 0, rows);
  run_lora(stream, args.weights, tables,
           {.x = args.x,
            .num_pairs = rows,
            .choices = 1,
            .num_experts = 1,
            .experts = nullptr,
            .places = nullptr,
            .x_by_place = false,
            .y_by_place = false,
            .y = args.y});
}

}  // namespace fovea::portable
