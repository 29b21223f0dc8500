#include "backend/cuda/cuda_ops.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

#include "backend/portable/device_matrix.h"
#include "backend/portable/shapes.h"
#include "base/math.h"
#include "base/try.h"

namespace fovea::cuda {

using portable::device_matrix;

Result<std::unique_ptr<Ops>> CudaOps::create(Device& device, portable::Launcher& launcher,
                                             const Options& options) {
  std::unique_ptr<CudaOps> ops(new CudaOps(device, launcher, options));
  auto products = LargeProducts::create(device);
  if (products.ok()) ops->products_ = std::move(products).value();
  ops->hopper_attention_ = HopperAttention::create();
  ops->hopper_experts_ = HopperExperts::create();
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
  cuda_stream.check(quantise_rows(rows, cuda_stream.next_launch()), "quantising a weight");
  FOVEA_TRY_STATUS(stream->synchronize());
  return portable::DeviceMatrix::of_f8(std::move(codes), std::move(scale));
}

// Whether tensor cores take these types, in this mode.
bool CudaOps::is_native(const LinearArgs& args) const {
  return !options_.batch_invariant && args.x.dtype == DType::kBf16 && args.x.shape[0] > 0 &&
         device_matrix(*args.weight).weight().dtype != DType::kF32;
}

namespace {

StreamedTerm as_term(const StreamedLinear& product) {
  return {product.x, product.weight, product.scale, product.bias, product.k};
}

// The kMostStreamedRows rows of a product from one on, or as many as there are.
LinearArgs rows_of(LinearArgs product, std::int64_t from) {
  const std::int64_t all = product.x.shape[0];
  const std::int64_t count = std::min<std::int64_t>(all - from, kMostStreamedRows);
  for (TensorView* t : {&product.x, &product.add, &product.y, &product.activated}) {
    if (!t->empty() && t->shape[0] == all) *t = t->rows(from, count);
  }
  return product;
}

}  // namespace

WeightType weight_type(const portable::DeviceMatrix& matrix) {
  switch (matrix.weight().dtype) {
    case DType::kF8E4M3:
      return WeightType::kFloat8;
    case DType::kInt4:
      return WeightType::kInt4;
    default:
      return WeightType::kBf16;
  }
}

bool are_aligned(std::initializer_list<TensorView> tensors) {
  constexpr std::uintptr_t kLoad = 16;
  return std::ranges::all_of(tensors, [](const TensorView& tensor) {
    return reinterpret_cast<std::uintptr_t>(tensor.data) % kLoad == 0;
  });
}

// A product for the kernel of few rows, if it takes it: kMostStreamedRows of them at a time.
std::optional<StreamedLinear> CudaOps::as_streamed(const LinearArgs& args,
                                                   MostRows most_rows) const {
  const portable::DeviceMatrix& matrix = device_matrix(*args.weight);
  const std::int64_t rows = args.x.shape[0];
  if (rows == 0 || rows > most_rows(weight_type(matrix)) || !is_native(args) ||
      !can_stream(matrix.cols())) {
    return std::nullopt;
  }
  // What is added to every few rows again could not be cut.
  const std::int64_t add_rows = args.add.empty() ? 1 : args.add.shape[0];
  if (rows > kMostStreamedRows && !args.add.empty() && add_rows != rows) return std::nullopt;
  return StreamedLinear{.x = args.x.data,
                        .weight = matrix.weight().data,
                        .scale = matrix.scale().empty() ? nullptr : matrix.scale().as<float>(),
                        .bias = args.bias.empty() ? nullptr : args.bias.as<float>(),
                        .add = args.add.empty() ? nullptr : args.add.data,
                        .y = args.y.data,
                        .activated = args.activated.data,
                        .m = static_cast<int>(rows),
                        .n = static_cast<int>(matrix.rows()),
                        .k = static_cast<int>(matrix.cols()),
                        .add_rows = static_cast<int>(add_rows),
                        .activation = static_cast<int>(args.activation),
                        .activated_by = static_cast<int>(args.activated_by),
                        .weight_type = weight_type(matrix),
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
                             static_cast<int>(matrix.rows()), stream.next_launch()),
               "rounding a bias");
  narrow.of = bias.data;
  return narrow.values.view().data;
}

bool CudaOps::multiply_large(CudaStream& stream, const LinearArgs& args) {
  const auto& matrix = device_matrix(*args.weight);
  const std::int64_t rows = args.x.shape[0];
  const bool is_narrow = weight_type(matrix) != WeightType::kBf16;
  if (products_ == nullptr || (!is_narrow && !matrix.scale().empty()) || matrix.cols() % 4 != 0 ||
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

// A weight in 8 or 4 bits as bf16, its scales included, until the next product; null, and a stream
// that has failed, when memory runs out.
const void* CudaOps::widened(CudaStream& stream, const portable::DeviceMatrix& matrix) {
  std::byte* memory =
      operand_.get(launcher_, stream, static_cast<std::size_t>(matrix.rows() * matrix.cols()) * 2);
  if (memory == nullptr) return nullptr;
  const auto widen = weight_type(matrix) == WeightType::kInt4 ? widen_int4 : widen_rows;
  const float* scale = matrix.scale().empty() ? nullptr : matrix.scale().as<float>();
  stream.check(widen(matrix.weight().data, scale, memory, static_cast<int>(matrix.rows()),
                     static_cast<int>(matrix.cols()), stream.next_launch()),
               "widening a weight");
  return memory;
}

// `activation` becomes what is left to do.
bool CudaOps::run_large(CudaStream& stream, const portable::DeviceMatrix& matrix,
                        const LargeProduct& product, Activation& activation) {
  const auto run = [&](const LargeProduct& p) {
    if (!products_->run(stream, p)) return false;
    if (p.gelu_tanh) activation = Activation::kNone;
    return true;
  };
  const WeightType type = weight_type(matrix);
  if (type == WeightType::kBf16) return run(product);
  LargeProduct wide = product;
  if (type == WeightType::kInt4) {
    wide.weight = widened(stream, matrix);
    return wide.weight == nullptr || run(wide);
  }
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
      stream.check(quantise_rows(rows, stream.next_launch()), "quantising rows");
      return run(f8);
    }
  }
  // Where the device does not multiply such matrices, the weight is widened for the occasion.
  constexpr std::int64_t kMostWidened = 65535;
  if (product.n > kMostWidened || product.k % 8 != 0) return false;
  wide.weight = widened(stream, matrix);
  return wide.weight == nullptr || run(wide);
}

void CudaOps::run_streamed(CudaStream& stream, const StreamedProducts& products,
                           std::initializer_list<TensorView> written) {
  if (!stream.check(cudaSetDevice(options_.device_index), "choosing the device")) return;
  stream.check(streamed_products(products, stream.next_launch()), "products of few rows");
  stream.newest_writes(written);
}

void CudaOps::linear(Stream& stream, const LinearArgs& args) {
  portable::check_linear(args);
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (!cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) return;
  if (const std::optional<StreamedLinear> streamed = as_streamed(args, most_streamed_rows)) {
    if (streamed->m > kMostStreamedRows) {
      for (int from = 0; from < streamed->m; from += kMostStreamedRows) {
        linear(stream, rows_of(args, from));
      }
      return;
    }
    StreamedProducts products{*streamed, *streamed};
    products.second.n = 0;
    run_streamed(cuda_stream, products, {args.y, args.activated});
    return;
  }
  if (!is_native(args) || !multiply_large(cuda_stream, args)) {
    return PortableOps::linear(stream, args);
  }
  if (!args.activated.empty()) activate(stream, args.y, args.activated_by, args.activated);
}

// Products of few rows are bound by memory: two that are small share the time in which neither
// fills the device.
void CudaOps::linears(Stream& stream, std::span<const LinearArgs> products) {
  if (products.size() == 2 && products[0].x.shape[0] == products[1].x.shape[0]) {
    portable::check_linear(products[0]);
    portable::check_linear(products[1]);
    const std::optional<StreamedLinear> first = as_streamed(products[0], most_streamed_rows),
                                        second = as_streamed(products[1], most_streamed_rows);
    if (first && second && first->k == second->k && first->x == second->x &&
        can_stream_together(first->weight_type, second->weight_type)) {
      if (first->m > kMostStreamedRows) {
        for (int from = 0; from < first->m; from += kMostStreamedRows) {
          linears(stream, std::array{rows_of(products[0], from), rows_of(products[1], from)});
        }
        return;
      }
      run_streamed(static_cast<CudaStream&>(stream), {*first, *second},
                   {products[0].y, products[0].activated, products[1].y, products[1].activated});
      return;
    }
  }
  PortableOps::linears(stream, products);
}

void CudaOps::layer_norm(Stream& stream, TensorView x, TensorView weight, TensorView bias,
                         float eps, TensorView y) {
  const std::int64_t width = x.shape.back(), rows = x.num_elements() / width;
  if (x.dtype != DType::kBf16 || y.dtype != DType::kBf16 || !can_norm(width) ||
      !are_aligned({x, weight, bias, y}) || rows == 0) {
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
  cuda_stream.check(row_norm(call, cuda_stream.next_launch()), "a norm");
}

// Two products that add to the same few rows are one of their depths together.
void CudaOps::add_linears(Stream& stream, std::span<const LinearArgs> products) {
  std::optional<StreamedLinear> terms[2];
  for (std::size_t i = 0; i < products.size(); ++i) {
    portable::check_linear(products[i]);
    FOVEA_CHECK(
        products[i].add.data == products[i].y.data && products[i].y.data == products[0].y.data,
        "products that add to different tensors");
    if (products.size() == 2 && products[i].activated.empty()) {
      terms[i] = as_streamed(products[i], most_summed_rows);
    }
  }
  if (!terms[0] || !terms[1] || terms[0]->y_is_f32 ||
      terms[0]->weight_type != terms[1]->weight_type ||
      !can_stream_parts(terms[0]->weight_type, std::gcd(terms[0]->k, terms[1]->k)) ||
      terms[0]->activation != 0 || terms[1]->activation != 0) {
    return PortableOps::add_linears(stream, products);
  }
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (!cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) return;
  if (!has_room_for_sum(terms[0]->weight_type, std::min(terms[0]->m, kMostStreamedRows),
                        cuda_stream.starts_early())) {
    return PortableOps::add_linears(stream, products);
  }
  if (terms[0]->m > kMostStreamedRows) {
    for (int from = 0; from < terms[0]->m; from += kMostStreamedRows) {
      add_linears(stream, std::array{rows_of(products[0], from), rows_of(products[1], from)});
    }
    return;
  }
  StreamedSum sum{.first = as_term(*terms[0]),
                  .second = as_term(*terms[1]),
                  .y = terms[0]->y,
                  .m = terms[0]->m,
                  .n = terms[0]->n,
                  .weight_type = terms[0]->weight_type,
                  .first_is_early = false};
  // What is there already is multiplied while the newest kernel still runs.
  for (const LinearArgs& product : {products[0], products[1]}) {
    if (sum.first_is_early || !cuda_stream.may_read_early({product.x, product.y})) continue;
    sum.first_is_early = true;
    if (product.x.data != sum.first.x) std::swap(sum.first, sum.second);
  }
  cuda_stream.check(streamed_sum(sum, cuda_stream.next_launch()), "a sum of products");
}

}  // namespace fovea::cuda
