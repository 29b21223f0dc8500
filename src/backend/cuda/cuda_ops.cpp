#include "backend/cuda/cuda_ops.h"

#include "backend/portable/device_matrix.h"
#include "backend/portable/shapes.h"

namespace fovea::cuda {

Result<std::unique_ptr<Ops>> CudaOps::create(Device& device, portable::Launcher& launcher,
                                             const Options& options) {
  std::unique_ptr<CudaOps> ops(new CudaOps(device, launcher, options));
  auto products = LargeProducts::create(device);
  if (products.ok()) ops->products_ = std::move(products).value();
  return std::unique_ptr<Ops>(std::move(ops));
}

bool CudaOps::stream_weights(CudaStream& stream, const LinearArgs& args) {
  const auto& matrix = static_cast<const portable::DeviceMatrix&>(*args.weight);
  const std::int64_t rows = args.x.shape[0];
  if (!can_stream(rows, matrix.cols())) return false;
  const StreamedLinear call{.x = args.x.data,
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
                            .add_is_f32 = args.add.dtype == DType::kF32,
                            .y_is_f32 = args.y.dtype == DType::kF32};
  stream.check(streamed_linear(call, stream.for_kernels()), "a product of few rows");
  return true;
}

bool CudaOps::multiply_large(CudaStream& stream, const LinearArgs& args) {
  const auto& matrix = static_cast<const portable::DeviceMatrix&>(*args.weight);
  const std::int64_t rows = args.x.shape[0];
  if (products_ == nullptr || !matrix.scale().empty() || matrix.cols() % 8 != 0 ||
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
    std::byte* bias = bias_.get(launcher_, stream, static_cast<std::size_t>(product.n) * 2);
    if (bias == nullptr) return true;
    stream.check(round_to_bf16(args.bias.as<float>(), bias, static_cast<int>(product.n),
                               stream.for_kernels()),
                 "rounding a bias");
    product.bias = bias;
  }
  if (!products_->run(stream, product)) return false;
  if (args.activation == Activation::kGeluErf) {
    activate(stream, args.y, Activation::kGeluErf, args.y);
  }
  if (adds_later) add_rows(stream, args.add, args.y);
  return true;
}

void CudaOps::linear(Stream& stream, const LinearArgs& args) {
  FOVEA_CHECK(args.weight != nullptr, "linear without a weight");
  const auto& matrix = static_cast<const portable::DeviceMatrix&>(*args.weight);
  const std::int64_t rows = args.x.shape[0];
  const bool is_bf16 =
      args.x.dtype == DType::kBf16 && matrix.weight().dtype == DType::kBf16 && rows > 0;
  if (options_.batch_invariant || !is_bf16) return PortableOps::linear(stream, args);
  FOVEA_CHECK(
      args.x.num_elements() == rows * matrix.cols() &&
          args.y.num_elements() == rows * matrix.rows() &&
          (args.bias.empty() || args.bias.num_elements() == matrix.rows()) &&
          (args.add.empty() || (args.add.num_elements() == args.add.shape[0] * matrix.rows() &&
                                rows % args.add.shape[0] == 0)),
      "x {}, bias {}, add {}, y {} for a weight of {} x {}", args.x.shape.to_string(),
      args.bias.shape.to_string(), args.add.shape.to_string(), args.y.shape.to_string(),
      matrix.rows(), matrix.cols());
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (!cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) return;
  if (stream_weights(cuda_stream, args) || multiply_large(cuda_stream, args)) return;
  PortableOps::linear(stream, args);
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
  cuda_stream.check(cuda::self_attention(call, cuda_stream.for_kernels()), "attention of crops");
}

void CudaOps::paged_attention(Stream& stream, TensorView qkv, KvPages pages, HeadLayout heads,
                              const AttentionBatch& batch, TensorView out) {
  if (options_.batch_invariant || qkv.dtype != DType::kBf16 || out.dtype != DType::kBf16 ||
      pages.k.dtype != DType::kBf16 || !can_attend(heads.head_dim) || !can_decode(heads.head_dim)) {
    return PortableOps::paged_attention(stream, qkv, pages, heads, batch, out);
  }
  portable::check_pages(pages, heads);
  constexpr int kMostDecoded = 4;  // rows that are cheaper one by one than as a tile
  const AttentionTables tables =
      put_attention_tables(stream, batch, kAttentionTileRows, kMostDecoded);
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  if (tables.data == nullptr ||
      !cuda_stream.check(cudaSetDevice(options_.device_index), "choosing the device")) {
    return;
  }
  TensorAttention call{.qkv = qkv.data,
                       .out = out.data,
                       .num_heads = heads.num_heads,
                       .num_kv_heads = heads.num_kv_heads,
                       .head_dim = heads.head_dim};
  call.k_pages = pages.k.data;
  call.v_pages = pages.v.data;
  call.tables = reinterpret_cast<const std::int32_t*>(tables.data);
  call.context_at = static_cast<int>(tables.context_at);
  call.prefix_at = static_cast<int>(tables.prefix_at);
  call.pages_at = static_cast<int>(tables.pages_at);
  call.page_size = heads.page_size;
  call.max_pages = static_cast<int>(batch.max_pages);
  if (tables.num_prompt_tiles > 0) {
    call.tiles_at = static_cast<int>(tables.prompt_tiles_at);
    call.num_tiles = static_cast<int>(tables.num_prompt_tiles);
    cuda_stream.check(prompt_attention(call, cuda_stream.for_kernels()), "attention of prompts");
  }
  if (tables.num_decode_tiles > 0) {
    call.tiles_at = static_cast<int>(tables.decode_tiles_at);
    call.num_tiles = static_cast<int>(tables.num_decode_tiles);
    cuda_stream.check(decode_attention(call, cuda_stream.for_kernels()),
                      "attention of decoded rows");
  }
}

}  // namespace fovea::cuda
