#include "backend/cuda/cuda_ops.h"

#include <algorithm>
#include <optional>

#include "backend/portable/device_matrix.h"
#include "backend/portable/launch_shape.h"
#include "backend/portable/shapes.h"
#include "base/math.h"
#include "base/try.h"
#include "kernels/moe.h"

namespace fovea::cuda {
namespace {

using Experts = std::span<const std::unique_ptr<const Matrix>>;

const portable::DeviceMatrix& device_matrix(const Matrix& matrix) {
  return static_cast<const portable::DeviceMatrix&>(matrix);
}

// What all experts of a product are stored as, if it is one and the same.
std::optional<DType> common_storage(Experts experts) {
  const DType first = device_matrix(*experts[0]).weight().dtype;
  const bool same = std::ranges::all_of(
      experts, [&](const auto& expert) { return device_matrix(*expert).weight().dtype == first; });
  return same ? std::optional(first) : std::nullopt;
}

void put_experts(Experts experts, ExpertProduct& product) {
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const portable::DeviceMatrix& matrix = device_matrix(*experts[e]);
    product.weights[e] = matrix.weight().data;
    product.scales[e] = matrix.scale().empty() ? nullptr : matrix.scale().as<float>();
  }
  product.n = static_cast<int>(experts[0]->rows());
  product.k = static_cast<int>(experts[0]->cols());
  product.weights_are_f8 = device_matrix(*experts[0]).weight().dtype == DType::kF8E4M3;
}

// Whether the native kernels take these experts.
bool can_run(Experts up, Experts down) {
  if (up.size() > kMostNativeExperts) return false;
  for (const Experts experts : {up, down}) {
    const std::optional<DType> storage = common_storage(experts);
    if (storage != DType::kBf16 && storage != DType::kF8E4M3) return false;
    if (experts[0]->cols() % 32 != 0) return false;
  }
  return up[0]->rows() == 2 * down[0]->cols() && down[0]->rows() == up[0]->cols();
}

}  // namespace

Result<std::unique_ptr<Ops>> CudaOps::create(Device& device, portable::Launcher& launcher,
                                             const Options& options) {
  std::unique_ptr<CudaOps> ops(new CudaOps(device, launcher, options));
  auto products = LargeProducts::create(device);
  if (products.ok()) ops->products_ = std::move(products).value();
  ops->hopper_attention_ = HopperAttention::create();
  return std::unique_ptr<Ops>(std::move(ops));
}

// Weights are quantised where they are going to be: row by row, as activations are.
Result<std::unique_ptr<const Matrix>> CudaOps::pack(const MatrixSource& source, DType storage) {
  const TensorView& weight = source.weight;
  if (storage != DType::kF8E4M3 || weight.dtype != DType::kBf16 || !source.row_scale.empty() ||
      !can_quantise(weight.shape.back()) || weight.num_elements() == 0) {
    return PortableOps::pack(source, storage);
  }
  FOVEA_TRY(Stream * stream, load_stream());
  FOVEA_TRY(Tensor wide, Tensor::create(device_, DType::kBf16, weight.shape));
  FOVEA_TRY(Tensor codes, Tensor::create(device_, DType::kF8E4M3, weight.shape));
  FOVEA_TRY(Tensor scale, Tensor::create(device_, DType::kF32, {weight.shape[0]}));
  stream->upload({weight.data, weight.size_bytes()}, wide.view());
  auto& cuda_stream = static_cast<CudaStream&>(*stream);
  const QuantisedRows rows{wide.view().data, codes.view().data, scale.view().as<float>(),
                           static_cast<int>(weight.shape[0]), static_cast<int>(weight.shape[1])};
  cuda_stream.check(quantise_rows(rows, cuda_stream.for_kernels()), "quantising a weight");
  FOVEA_TRY_STATUS(stream->synchronize());
  return portable::DeviceMatrix::of_f8(std::move(codes), std::move(scale));
}

// Whether tensor cores take these types, in this mode.
bool CudaOps::is_native(const LinearArgs& args) const {
  return !options_.batch_invariant && args.x.dtype == DType::kBf16 && args.x.shape[0] > 0 &&
         device_matrix(*args.weight).weight().dtype != DType::kF32;
}

// A product for the kernel of few rows, if it takes it.
std::optional<StreamedLinear> CudaOps::as_streamed(const LinearArgs& args) const {
  const portable::DeviceMatrix& matrix = device_matrix(*args.weight);
  const std::int64_t rows = args.x.shape[0];
  const DType storage = matrix.weight().dtype;
  if (!is_native(args) || !can_stream(rows, matrix.cols())) return std::nullopt;
  return StreamedLinear{.x = args.x.data,
                        .weight = matrix.weight().data,
                        .scale = matrix.scale().empty() ? nullptr : matrix.scale().as<float>(),
                        .bias = args.bias.empty() ? nullptr : args.bias.as<float>(),
                        .add = args.add.empty() ? nullptr : args.add.data,
                        .y = args.y.data,
                        .m = static_cast<int>(rows),
                        .n = static_cast<int>(matrix.rows()),
                        .k = static_cast<int>(matrix.cols()),
                        .add_rows = args.add.empty() ? 1 : static_cast<int>(args.add.shape[0]),
                        .activation = static_cast<int>(args.activation),
                        .weight_is_f8 = storage == DType::kF8E4M3,
                        .add_is_f32 = args.add.dtype == DType::kF32,
                        .y_is_f32 = args.y.dtype == DType::kF32};
}

// The library takes biases in the type of its output: rounded once, and kept with the weight. Null
// when memory runs out.
const void* CudaOps::narrow_bias(CudaStream& stream, const portable::DeviceMatrix& matrix,
                                 TensorView bias) {
  portable::DeviceMatrix::NarrowBias& narrow = matrix.narrow_bias();
  if (narrow.of == bias.data) return narrow.values.view().data;
  narrow.of = nullptr;
  auto values = Tensor::create(device_, DType::kBf16, {matrix.rows()});
  if (!values.ok()) {
    stream.fail(std::move(values).error());
    return nullptr;
  }
  narrow.values = std::move(values).value();
  stream.check(round_to_bf16(bias.as<float>(), narrow.values.view().data,
                             static_cast<int>(matrix.rows()), stream.for_kernels()),
               "rounding a bias");
  narrow.of = bias.data;
  return narrow.values.view().data;
}

bool CudaOps::multiply_large(CudaStream& stream, const LinearArgs& args) {
  const auto& matrix = device_matrix(*args.weight);
  const std::int64_t rows = args.x.shape[0];
  const bool is_f8 = matrix.weight().dtype == DType::kF8E4M3;
  if (products_ == nullptr || (!is_f8 && !matrix.scale().empty()) || matrix.cols() % 4 != 0 ||
      matrix.rows() % 8 != 0) {
    return false;
  }
  const bool adds = !args.add.empty();
  const bool adds_same = adds && args.add.dtype == args.y.dtype && args.add.shape[0] == rows;
  const bool adds_later = adds && (!adds_same || args.activation != Activation::kNone);
  if (adds_later && args.add.dtype != DType::kF32) return false;
  if (adds_later && args.add.data == args.y.data) return false;
  LargeProduct product{.x = args.x.data,
                       .weight = matrix.weight().data,
                       .bias = args.bias.empty() ? nullptr : args.bias.data,
                       .add = adds && !adds_later ? args.add.data : nullptr,
                       .y = args.y.data,
                       .m = rows,
                       .n = matrix.rows(),
                       .k = matrix.cols(),
                       .gelu_tanh = args.activation == Activation::kGeluTanh,
                       .y_is_f32 = args.y.dtype == DType::kF32};
  if (product.bias != nullptr && !product.y_is_f32) {
    product.bias = narrow_bias(stream, matrix, args.bias);
    if (product.bias == nullptr) return true;
  }
  Activation activates_later = args.activation;
  if (!run_large(stream, matrix, product, activates_later)) return false;
  if (activates_later != Activation::kNone) activate(stream, args.y, activates_later, args.y);
  if (adds_later) add_rows(stream, args.add, args.y);
  return true;
}

// `activation` becomes what is left to do.
bool CudaOps::run_large(CudaStream& stream, const portable::DeviceMatrix& matrix,
                        const LargeProduct& product, Activation& activation) {
  const auto run = [&](const LargeProduct& p) {
    if (!products_->run(stream, p)) return false;
    if (p.gelu_tanh) activation = Activation::kNone;
    return true;
  };
  if (matrix.weight().dtype != DType::kF8E4M3) return run(product);
  const std::size_t x_bytes =
      round_up(static_cast<std::size_t>(product.m * product.k), std::size_t{256});
  std::byte* memory =
      operand_.get(launcher_, stream, x_bytes + static_cast<std::size_t>(product.m) * 4);
  if (memory == nullptr) return true;
  // Of few rows and a great depth the library makes several times what widening costs.
  constexpr std::int64_t kFewRows = 64, kGreatDepth = 4096;
  const bool is_flat = product.m <= kFewRows && product.k >= kGreatDepth;
  if (LargeProduct f8 = product; !matrix.scale().empty() && can_quantise(product.k) && !is_flat) {
    f8.x = memory;
    f8.x_scale = reinterpret_cast<float*>(memory + x_bytes);
    f8.weight_scale = matrix.scale().as<float>();
    for (const bool fused : {product.gelu_tanh, false}) {
      f8.gelu_tanh = fused;
      if (!products_->can_run(f8)) continue;
      const QuantisedRows rows{product.x, memory, reinterpret_cast<float*>(memory + x_bytes),
                               static_cast<int>(product.m), static_cast<int>(product.k)};
      stream.check(quantise_rows(rows, stream.for_kernels()), "quantising rows");
      return run(f8);
    }
  }
  // Where the device does not multiply such matrices, the weight is widened for the occasion.
  constexpr std::int64_t kMostWidened = 65535;
  if (product.n > kMostWidened || product.k % 8 != 0) return false;
  LargeProduct wide = product;
  memory = operand_.get(launcher_, stream, static_cast<std::size_t>(product.n * product.k) * 2);
  if (memory == nullptr) return true;
  const float* scale = matrix.scale().empty() ? nullptr : matrix.scale().as<float>();
  stream.check(widen_rows(matrix.weight().data, scale, memory, static_cast<int>(product.n),
                          static_cast<int>(product.k), stream.for_kernels()),
               "widening a weight");
  wide.weight = memory;
  return run(wide);
}

void CudaOps::linear(Stream& stream, const LinearArgs& args) {
  portable::check_linear(args);
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (!cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) return;
  if (const std::optional<StreamedLinear> streamed = as_streamed(args)) {
    cuda_stream.check(streamed_linear(*streamed, cuda_stream.for_kernels()),
                      "a product of few rows");
    return;
  }
  if (!is_native(args) || !multiply_large(cuda_stream, args)) PortableOps::linear(stream, args);
}

// Products of few rows are bound by memory: two that are small share the time in which neither
// fills the device.
void CudaOps::linears(Stream& stream, std::span<const LinearArgs> products) {
  if (products.size() == 2 && products[0].x.shape[0] == products[1].x.shape[0]) {
    portable::check_linear(products[0]);
    portable::check_linear(products[1]);
    const std::optional<StreamedLinear> first = as_streamed(products[0]),
                                        second = as_streamed(products[1]);
    auto& cuda_stream = static_cast<CudaStream&>(stream);
    if (first && second &&
        cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) {
      cuda_stream.check(streamed_pair(*first, *second, cuda_stream.for_kernels()),
                        "two products of few rows");
      return;
    }
  }
  PortableOps::linears(stream, products);
}

void CudaOps::layer_norm(Stream& stream, TensorView x, TensorView weight, TensorView bias,
                         float eps, TensorView y) {
  const std::int64_t width = x.shape.back(), rows = x.num_elements() / width;
  std::uintptr_t addresses = 0;
  for (const TensorView& tensor : {x, weight, bias, y}) {
    addresses |= reinterpret_cast<std::uintptr_t>(tensor.data);
  }
  if (x.dtype != DType::kBf16 || y.dtype != DType::kBf16 || !can_norm(width) ||
      addresses % 16 != 0 || rows == 0) {
    return PortableOps::layer_norm(stream, x, weight, bias, eps, y);
  }
  FOVEA_CHECK(weight.num_elements() == width && bias.num_elements() == width &&
                  y.num_elements() == rows * width,
              "x {}, weight {}, bias {}, y {}", x.shape.to_string(), weight.shape.to_string(),
              bias.shape.to_string(), y.shape.to_string());
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (!cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) return;
  const RowNorm call{.x = x.data,
                     .weight = weight.as<float>(),
                     .bias = bias.as<float>(),
                     .y = y.data,
                     .rows = static_cast<int>(rows),
                     .width = static_cast<int>(width),
                     .eps = eps};
  cuda_stream.check(row_norm(call, cuda_stream.for_kernels()), "a norm");
}

void CudaOps::self_attention(Stream& stream, TensorView qkv, int tokens, int num_heads,
                             TensorView out) {
  const std::int64_t dim = out.shape.back();
  const auto head_dim = static_cast<int>(dim / num_heads);
  const std::int64_t rows = out.num_elements() / dim;
  if (options_.batch_invariant || qkv.dtype != DType::kBf16 || out.dtype != DType::kBf16 ||
      !can_attend(head_dim)) {
    return PortableOps::self_attention(stream, qkv, tokens, num_heads, out);
  }
  FOVEA_CHECK(tokens > 0 && dim == std::int64_t{num_heads} * head_dim && rows % tokens == 0 &&
                  qkv.num_elements() == rows * 3 * dim,
              "qkv {}, out {}", qkv.shape.to_string(), out.shape.to_string());
  if (rows == 0) return;
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (!cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) return;
  TensorAttention call{.qkv = qkv.data,
                       .out = out.data,
                       .num_heads = num_heads,
                       .num_kv_heads = num_heads,
                       .head_dim = head_dim};
  call.tokens = tokens;
  call.num_crops = static_cast<int>(rows / tokens);
  const bool on_hopper = hopper_attention_ != nullptr && HopperAttention::takes_crops(call);
  cuda_stream.check(on_hopper ? hopper_attention_->self_attention(call, cuda_stream.for_kernels())
                              : cuda::self_attention(call, cuda_stream.for_kernels()),
                    "attention of crops");
}

void CudaOps::paged_attention(Stream& stream, TensorView qkv, KvPages pages, HeadLayout heads,
                              const AttentionBatch& batch, TensorView out) {
  if (options_.batch_invariant || qkv.dtype != DType::kBf16 || out.dtype != DType::kBf16 ||
      pages.k.dtype != DType::kBf16 || !can_attend(heads.head_dim) || !can_decode(heads.head_dim)) {
    return PortableOps::paged_attention(stream, qkv, pages, heads, batch, out);
  }
  portable::check_pages(pages, heads);
  TensorAttention call{.qkv = qkv.data,
                       .out = out.data,
                       .num_heads = heads.num_heads,
                       .num_kv_heads = heads.num_kv_heads,
                       .head_dim = heads.head_dim};
  call.k_pages = pages.k.data;
  call.v_pages = pages.v.data;
  call.page_size = heads.page_size;
  call.max_pages = static_cast<int>(batch.max_pages);
  call.num_rows = static_cast<int>(qkv.shape[0]);
  call.num_pages = static_cast<int>(pages.k.shape[0]);
  const bool on_hopper = hopper_attention_ != nullptr && HopperAttention::takes_pages(call);
  constexpr int kMostDecoded = 4;  // rows that are cheaper one by one than as a tile
  const AttentionTables tables = put_attention_tables(
      stream, batch, on_hopper ? HopperAttention::kTileRows : kAttentionTileRows, kMostDecoded);
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (tables.data == nullptr ||
      !cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) {
    return;
  }
  call.tables = reinterpret_cast<const std::int32_t*>(tables.data);
  call.context_at = static_cast<int>(tables.context_at);
  call.prefix_at = static_cast<int>(tables.prefix_at);
  call.pages_at = static_cast<int>(tables.pages_at);
  if (tables.num_prompt_tiles > 0) {
    call.tiles_at = static_cast<int>(tables.prompt_tiles_at);
    call.num_tiles = static_cast<int>(tables.num_prompt_tiles);
    cuda_stream.check(on_hopper
                          ? hopper_attention_->prompt_attention(call, cuda_stream.for_kernels())
                          : prompt_attention(call, cuda_stream.for_kernels()),
                      "attention of prompts");
  }
  if (tables.num_decode_tiles > 0) {
    call.tiles_at = static_cast<int>(tables.decode_tiles_at);
    call.num_tiles = static_cast<int>(tables.num_decode_tiles);
    cuda_stream.check(decode_attention(call, cuda_stream.for_kernels()),
                      "attention of decoded rows");
  }
}

void CudaOps::moe_mlp(Stream& stream, TensorView x, TensorView experts, TensorView weights,
                      Experts up, Experts down, const MoeLora* lora, TensorView y) {
  const std::int64_t rows = x.shape[0], dim = x.shape.back(), k = experts.shape.back();
  if (options_.batch_invariant || lora != nullptr || x.dtype != DType::kBf16 ||
      y.dtype != DType::kBf16 || rows == 0 || up.empty() || up.size() != down.size() ||
      k > kMostNativeChoices || !can_run(up, down)) {
    return PortableOps::moe_mlp(stream, x, experts, weights, up, down, lora, y);
  }
  FOVEA_CHECK(up[0]->cols() == dim && experts.num_elements() == rows * k &&
                  weights.num_elements() == rows * k && y.num_elements() == rows * dim,
              "x {}, experts {}, y {}", x.shape.to_string(), experts.shape.to_string(),
              y.shape.to_string());
  // results [pairs, dim] f32, gated [pairs, inner] bf16; numbers: offsets [experts + 1], places
  // [pairs], rows [pairs].
  const std::int64_t inner = down[0]->cols(), pairs = rows * k;
  const auto num_experts = static_cast<std::int64_t>(up.size());
  const std::int64_t gated_at = pairs * dim * 4, offsets_at = gated_at + pairs * inner * 2;
  const std::int64_t places_at = offsets_at + (num_experts + 1) * 4;
  const std::int64_t rows_at = places_at + pairs * 4;
  std::byte* memory =
      expert_memory_.get(launcher_, stream, static_cast<std::size_t>(rows_at + pairs * 4));
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (memory == nullptr ||
      !cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) {
    return;
  }
  constexpr std::uint32_t kSortThreads = 256;
  kernels::MoeParams moe{portable::narrow(rows), portable::narrow(k), portable::narrow(num_experts),
                         portable::narrow(dim)};
  const bool is_single = rows == 1;
  if (!is_single) {
    launch(stream, kernels::KernelId::moe_sort, {1}, kSortThreads,
           static_cast<std::size_t>(2 * (num_experts + 1)) * 4, moe,
           {experts.data, memory + offsets_at, memory + places_at, memory + rows_at});
  }
  ExpertProduct product{};
  product.offsets = reinterpret_cast<const std::int32_t*>(memory + offsets_at);
  product.row_of_place = reinterpret_cast<const std::int32_t*>(memory + rows_at);
  product.experts = experts.as<std::int32_t>();
  product.routing = weights.as<float>();
  product.num_rows = static_cast<int>(rows);
  product.num_pairs = static_cast<int>(pairs);
  product.num_experts = static_cast<int>(num_experts);
  put_experts(up, product);
  product.x = x.data;
  product.y = memory + gated_at;
  const auto multiply = rows <= kMostStreamedExpertRows ? streamed_experts : tiled_experts;
  cuda_stream.check(multiply(product, true, cuda_stream.for_kernels()), "experts, up");
  put_experts(down, product);
  product.x = memory + gated_at;
  product.y = is_single ? y.data : memory;
  cuda_stream.check(multiply(product, false, cuda_stream.for_kernels()), "experts, down");
  if (is_single) return;
  launch(stream, kernels::KernelId::moe_combine_bf16, {portable::narrow(rows)}, portable::kThreads,
         0, moe, {memory, memory + places_at, weights.data, y.data});
}

}  // namespace fovea::cuda
