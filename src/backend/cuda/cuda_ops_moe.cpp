#include <algorithm>
#include <optional>

#include "backend/cuda/cuda_ops.h"
#include "backend/portable/launch_shape.h"
#include "backend/portable/shapes.h"
#include "base/math.h"
#include "kernels/moe.h"

namespace fovea::cuda {

using portable::device_matrix;

namespace {

using Experts = std::span<const std::unique_ptr<const Matrix>>;

// What all experts of a product are stored as, if it is one and the same.
std::optional<DType> common_storage(Experts experts) {
  const DType first = device_matrix(*experts[0]).weight().dtype;
  const bool same = std::ranges::all_of(
      experts, [&](const auto& expert) { return device_matrix(*expert).weight().dtype == first; });
  return same ? std::optional(first) : std::nullopt;
}

// Product: ExpertProduct or RoutedRows.
template <class Product>
void put_weights(Experts experts, Product& product) {
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const portable::DeviceMatrix& matrix = device_matrix(*experts[e]);
    product.weights[e] = matrix.weight().data;
    product.scales[e] = matrix.scale().empty() ? nullptr : matrix.scale().as<float>();
  }
  product.weight_type = weight_type(device_matrix(*experts[0]));
}

void put_experts(Experts experts, ExpertProduct& product) {
  put_weights(experts, product);
  product.n = static_cast<int>(experts[0]->rows());
  product.k = static_cast<int>(experts[0]->cols());
}

// Whether the native kernels take these experts.
bool can_run(Experts up, Experts down) {
  if (up.size() > kMostNativeExperts) return false;
  for (const Experts experts : {up, down}) {
    const std::optional<DType> storage = common_storage(experts);
    if (!storage || storage == DType::kF32) return false;
    if (experts[0]->cols() % 32 != 0) return false;
  }
  return up[0]->rows() == 2 * down[0]->cols() && down[0]->rows() == up[0]->cols();
}

// Where in a layer's memory its parts begin, in bytes. The codes and scales are those of the rows
// and then those of the gated products.
struct ExpertMemory {
  std::size_t results;       // [pairs, dim] f32; bf16 of HopperExperts
  std::size_t gated;         // [pairs, inner] bf16
  std::size_t codes;         // [rows, dim] or [pairs, inner] e4m3; nothing unless in 8 bits
  std::size_t scales;        // [pairs] f32; the same
  std::size_t offsets;       // [experts + 1]
  std::size_t places;        // [pairs]
  std::size_t row_of_place;  // [pairs]
  std::size_t added;         // [pairs, 2 inner] f32; nothing unless rows have adapters
  std::size_t size;
};
ExpertMemory lay_out(std::int64_t rows, std::int64_t k, std::int64_t dim, std::int64_t inner,
                     std::int64_t num_experts, bool in_8_bits, bool has_adapters) {
  ExpertMemory memory{};
  const auto reserve = [&](std::int64_t bytes) {
    const std::size_t at = memory.size;
    memory.size += round_up(static_cast<std::size_t>(bytes), std::size_t{16});
    return at;
  };
  const std::int64_t pairs = rows * k;
  memory.results = reserve(pairs * dim * 4);
  memory.gated = reserve(pairs * inner * 2);
  memory.codes = reserve(in_8_bits ? std::max(rows * dim, pairs * inner) : 0);
  memory.scales = reserve(in_8_bits ? pairs * 4 : 0);
  memory.offsets = reserve((num_experts + 1) * 4);
  memory.places = reserve(pairs * 4);
  memory.row_of_place = reserve(pairs * 4);
  memory.added = reserve(has_adapters ? pairs * 2 * inner * 4 : 0);
  return memory;
}

// What both products of a layer have in common.
ExpertProduct product_in(std::byte* memory, const ExpertMemory& at, std::int64_t rows,
                         std::int64_t pairs, std::int64_t num_experts) {
  ExpertProduct product{};
  product.offsets = reinterpret_cast<const std::int32_t*>(memory + at.offsets);
  product.row_of_place = reinterpret_cast<const std::int32_t*>(memory + at.row_of_place);
  product.num_rows = static_cast<int>(rows);
  product.num_pairs = static_cast<int>(pairs);
  product.num_experts = static_cast<int>(num_experts);
  return product;
}

// The sums of results in bf16, as HopperExperts leaves them.
CombinedExperts combined_in(std::byte* memory, const ExpertMemory& at, TensorView weights,
                            TensorView y) {
  CombinedExperts combined{};
  combined.results = memory + at.results;
  combined.places = reinterpret_cast<const std::int32_t*>(memory + at.places);
  combined.weights = weights.as<float>();
  combined.y = y.data;
  combined.rows = static_cast<int>(weights.shape[0]);
  combined.choices = static_cast<int>(weights.shape.back());
  combined.width = static_cast<int>(y.shape.back());
  return combined;
}

}  // namespace

void CudaOps::moe_mlp(Stream& stream, TensorView x, TensorView experts, TensorView weights,
                      Experts up, Experts down, const MoeLora* lora, TensorView y) {
  const std::int64_t rows = x.shape[0], dim = x.shape.back(), k = experts.shape.back();
  if (options_.batch_invariant || x.dtype != DType::kBf16 || y.dtype != DType::kBf16 || rows == 0 ||
      up.empty() || up.size() != down.size() || k > kMostNativeChoices || !can_run(up, down)) {
    return PortableOps::moe_mlp(stream, x, experts, weights, up, down, lora, y);
  }
  FOVEA_CHECK(up[0]->cols() == dim && experts.num_elements() == rows * k &&
                  weights.num_elements() == rows * k && y.num_elements() == rows * dim,
              "x {}, experts {}, y {}", x.shape.to_string(), experts.shape.to_string(),
              y.shape.to_string());
  const std::int64_t inner = down[0]->cols(), pairs = rows * k;
  const auto num_experts = static_cast<std::int64_t>(up.size());
  LoraTables up_adapters{}, down_adapters{};
  if (lora != nullptr) {
    up_adapters = put_lora_tables(stream, up_adapters_, lora->up, lora->batch, rows, 0, rows);
    down_adapters = put_lora_tables(stream, down_adapters_, lora->down, lora->batch, rows, 0, rows);
  }
  const bool adds_up = up_adapters.largest_rank > 0, adds_down = down_adapters.largest_rank > 0;
  const bool on_hopper = rows > kMostStreamedExpertRows && hopper_experts_ != nullptr && !adds_up &&
                         num_experts <= HopperExperts::kMostExperts &&
                         common_storage(up) == common_storage(down);
  const bool in_8_bits =
      on_hopper && common_storage(up) == DType::kF8E4M3 && can_quantise(dim) && can_quantise(inner);
  const ExpertMemory at = lay_out(rows, k, dim, inner, num_experts, in_8_bits, adds_up);
  std::byte* memory = expert_memory_.get(launcher_, stream, at.size);
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (memory == nullptr ||
      !cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) {
    return;
  }
  constexpr std::uint32_t kSortThreads = 256;
  kernels::MoeParams moe{portable::narrow(rows), portable::narrow(k), portable::narrow(num_experts),
                         portable::narrow(dim)};
  launch(stream, kernels::KernelId::moe_sort, {1}, kSortThreads,
         static_cast<std::size_t>(2 * (num_experts + 1)) * 4, moe,
         {experts.data, memory + at.offsets, memory + at.places, memory + at.row_of_place});
  ExpertProduct product = product_in(memory, at, rows, pairs, num_experts);
  const auto put_x = [&](const void* from, std::int64_t count, std::int64_t width) {
    product.x = from;
    if (!in_8_bits) return;
    const QuantisedRows quantised{from, memory + at.codes,
                                  reinterpret_cast<float*>(memory + at.scales),
                                  static_cast<int>(count), static_cast<int>(width)};
    cuda_stream.check(quantise_rows(quantised, cuda_stream.next_launch()), "quantising rows");
    product.x = quantised.y;
    product.x_scales = quantised.scale;
  };
  const bool takes_hopper = on_hopper && (in_8_bits || common_storage(up) == DType::kBf16);
  const auto multiply = [&](bool is_up) {
    const KernelStream on = cuda_stream.next_launch();
    return rows <= kMostStreamedExpertRows ? streamed_experts(product, is_up, on)
           : takes_hopper                  ? hopper_experts_->multiply(product, is_up, on)
                                           : tiled_experts(product, is_up, on);
  };
  put_experts(up, product);
  if (adds_up) {
    const TensorView added{DType::kF32, {pairs, 2 * inner}, memory + at.added};
    cuda_stream.check(cudaMemsetAsync(added.data, 0, added.size_bytes(), cuda_stream.handle()),
                      "clearing what adapters add");
    run_expert_lora(stream, lora->up, up_adapters, experts, memory + at.places, false, x, added);
    product.added = added.as<float>();
  }
  put_x(x.data, rows, dim);
  product.y = memory + at.gated;
  cuda_stream.check(multiply(true), "experts, up");
  put_experts(down, product);
  put_x(memory + at.gated, pairs, inner);
  product.y = memory + at.results;
  cuda_stream.check(multiply(false), "experts, down");
  if (adds_down) {
    run_expert_lora(stream, lora->down, down_adapters, experts, memory + at.places, true,
                    {DType::kBf16, {pairs, inner}, memory + at.gated},
                    {takes_hopper ? DType::kBf16 : DType::kF32, {pairs, dim}, memory + at.results});
  }
  if (takes_hopper) {
    cuda_stream.check(
        combine_experts(combined_in(memory, at, weights, y), cuda_stream.next_launch()),
        "experts, sum");
    return;
  }
  launch(stream, kernels::KernelId::moe_combine_bf16, {portable::narrow(rows)}, portable::kThreads,
         0, moe, {memory + at.results, memory + at.places, weights.data, y.data});
}

// The product beside the experts as a part of their second one, if it can be that.
std::optional<StreamedTerm> CudaOps::beside_experts(const RoutedExpertsArgs& args, WeightType type,
                                                    std::int64_t inner) const {
  if (args.beside == nullptr) return std::nullopt;
  portable::check_linear(*args.beside);
  FOVEA_CHECK(args.beside->y.data == args.y.data && args.beside->add.data == args.y.data,
              "a product beside the experts that adds to something else");
  const std::optional<StreamedLinear> product = as_streamed(*args.beside, most_streamed_rows);
  if (!product || product->weight_type != type || product->k % inner != 0 ||
      !can_stream_parts(type, inner) || product->activation != 0 || product->activated != nullptr) {
    return std::nullopt;
  }
  return StreamedTerm{product->x, product->weight, product->scale, product->bias, product->k};
}

// Of a few rows, which choose their experts in both of the kernels; `beside` is part of the second,
// and the first does not wait for an attention that runs beside it.
void CudaOps::routed_experts(Stream& stream, const RoutedExpertsArgs& args) {
  const std::int64_t rows = args.x.shape[0], dim = args.x.shape.back();
  const std::int64_t k = args.experts.shape.back();
  const auto num_experts = static_cast<std::int64_t>(args.up.size());
  const bool is_native = !options_.batch_invariant && args.lora == nullptr && rows >= 1 &&
                         rows <= kMostRoutedRows && args.x.dtype == DType::kBf16 &&
                         args.y.dtype == DType::kBf16 && args.router.dtype == DType::kF32 &&
                         !args.up.empty() && args.up.size() == args.down.size() &&
                         num_experts <= kMostRoutedExperts && k <= kMostRoutedChoices &&
                         k <= num_experts && can_run(args.up, args.down);
  if (!is_native) return PortableOps::routed_experts(stream, args);
  FOVEA_CHECK(args.up[0]->cols() == dim && args.router.num_elements() == rows * num_experts &&
                  args.y.num_elements() == rows * dim,
              "x {}, router {}, y {}", args.x.shape.to_string(), args.router.shape.to_string(),
              args.y.shape.to_string());
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  const std::int64_t inner = args.down[0]->cols();
  const std::int64_t places = std::min(rows * k, num_experts) * rows;
  std::byte* gated =
      expert_memory_.get(launcher_, stream, static_cast<std::size_t>(places * inner) * 2);
  if (gated == nullptr ||
      !cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) {
    return;
  }
  RoutedRows call{};
  call.x = args.x.data;
  call.router = args.router.as<float>();
  call.gated = gated;
  call.y = args.y.data;
  call.rows = static_cast<int>(rows);
  call.num_experts = static_cast<int>(num_experts);
  call.choices = static_cast<int>(k);
  call.dim = static_cast<int>(dim);
  call.inner = static_cast<int>(inner);
  const std::optional<StreamedTerm> beside =
      beside_experts(args, weight_type(device_matrix(*args.down[0])), inner);
  call.is_early = cuda_stream.may_read_early({args.x, args.router}) &&
                  (args.beside == nullptr || beside.has_value());
  if (args.beside != nullptr && !beside) linear(stream, *args.beside);
  put_weights(args.up, call);
  cuda_stream.check(routed_rows(call, true, cuda_stream.next_launch()), "experts, up");
  put_weights(args.down, call);
  if (beside) call.beside = *beside;
  cuda_stream.check(routed_rows(call, false, cuda_stream.next_launch()), "experts, down");
}

}  // namespace fovea::cuda
