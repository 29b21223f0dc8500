#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/packed_matrix.h"
#include "backend/cpu/parallel_rows.h"
#include "base/check.h"

namespace fovea::cpu {
namespace {

Epilogue epilogue_of(Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return Epilogue::kNone;
    case Activation::kGeluTanh:
      return Epilogue::kGeluTanh;
    case Activation::kGeluErf:
      return Epilogue::kGeluErf;
  }
  return Epilogue::kNone;
}

}  // namespace

CpuOps::CpuOps(ThreadPool& pool, const KernelTable& kernels)
    : pool_(pool),
      kernels_(kernels),
      products_(pool_, kernels_, scratch_),
      sampler_scratch_(static_cast<std::size_t>(pool.num_threads())) {}

std::unique_ptr<CpuOps> CpuOps::create(ThreadPool& pool, const KernelTable& kernels) {
  std::unique_ptr<CpuOps> ops(new CpuOps(pool, kernels));
  if (!ops->scratch_.allocate(pool.num_threads(), kernels.scratch_floats)) return nullptr;
  return ops;
}

DType CpuOps::activation_dtype(DType) const { return DType::kF32; }

Result<std::unique_ptr<const Matrix>> CpuOps::pack(const MatrixSource& source, DType storage) {
  return PackedMatrix::pack(source, storage, kernels_, pool_);
}

void CpuOps::linear(Stream& stream, const LinearArgs& args) {
  FOVEA_CHECK(args.weight != nullptr, "linear without a weight");
  const auto& weight = static_cast<const PackedMatrix&>(*args.weight);
  FOVEA_CHECK(weight.kernels() == &kernels_, "weight packed for other kernels");
  const std::int64_t rows = args.x.shape[0];
  FOVEA_CHECK(args.x.dtype == DType::kF32 && args.y.dtype == DType::kF32, "activations are f32");
  FOVEA_CHECK(args.x.num_elements() == rows * weight.cols(), "x {} for a weight of {} columns",
              args.x.shape.to_string(), weight.cols());
  FOVEA_CHECK(args.y.num_elements() == rows * weight.rows(), "y {} for a weight of {} rows",
              args.y.shape.to_string(), weight.rows());
  FOVEA_CHECK(args.bias.empty() || args.bias.num_elements() == weight.rows(), "bias {} for {} rows",
              args.bias.shape.to_string(), weight.rows());
  const std::int64_t add_rows = args.add.empty() ? 1 : args.add.shape[0];
  FOVEA_CHECK(args.add.empty() || (args.add.num_elements() == add_rows * weight.rows() &&
                                   (rows == 0 || (add_rows > 0 && rows % add_rows == 0))),
              "add {} for y {}", args.add.shape.to_string(), args.y.shape.to_string());
  GemmArgs product{};
  product.x = args.x.as<float>();
  product.x_stride = weight.cols();
  product.panels = weight.panels();
  product.type = weight.type();
  product.scale = weight.scale();
  product.bias = args.bias.empty() ? nullptr : args.bias.as<float>();
  product.epilogue = epilogue_of(args.activation);
  product.add = args.add.empty() ? nullptr : args.add.as<float>();
  product.add_rows = add_rows;
  product.y = args.y.as<float>();
  product.y_stride = weight.rows();
  product.m = rows;
  product.n = weight.rows();
  product.k = weight.cols();
  products_.run({&product, 1});
  if (!args.activated.empty()) activate(stream, args.y, args.activated_by, args.activated);
}

void CpuOps::activate(Stream&, TensorView x, Activation activation, TensorView y) {
  FOVEA_CHECK(x.num_elements() == y.num_elements(), "x {}, y {}", x.shape.to_string(),
              y.shape.to_string());
  const float* in = x.as<float>();
  float* out = y.as<float>();
  parallel_rows(pool_, x.num_elements(), 4, [&](std::int64_t begin, std::int64_t end, int) {
    kernels_.activate(in + begin, epilogue_of(activation), out + begin, end - begin);
  });
}

}  // namespace fovea::cpu
