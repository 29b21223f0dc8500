#pragma once

#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "fovea/result.h"

#include "backend/buffer.h"
#include "backend/cuda/cublaslt_library.h"
#include "backend/cuda/cuda_stream.h"
#include "backend/cuda/product_choices.h"
#include "backend/cuda/product_timing.h"

namespace fovea::cuda {

/// y = activation(x . weight^T + bias) + add, of bf16 matrices or of e4m3 with scales.
struct LargeProduct {
  const void* x;       ///< [m, k] bf16 or e4m3
  const void* weight;  ///< [n, k] of the type of x
  const void* bias;    ///< [n] of the type of y, or null
  const void* add;     ///< [m, n] of the type of y, or null; may be y
  void* y;             ///< [m, n] bf16 or f32
  std::int64_t m, n, k;
  bool gelu_tanh;  ///< not together with add
  bool y_is_f32;
  const float* x_scale = nullptr;       ///< [m], of e4m3
  const float* weight_scale = nullptr;  ///< [n], of e4m3
};

/// Products through cuBLASLt. What it needs for a shape is looked up once and kept. The first time
/// that so many rows meet a weight of some shape, the library's proposals are timed; the fastest is
/// remembered, also by later processes (see ProductChoices). One stream at a time.
class LargeProducts {
 public:
  /// Errors: kUnsupported without the library, kResourceExhausted.
  static Result<std::unique_ptr<LargeProducts>> create(Device& device);
  ~LargeProducts();
  LargeProducts(const LargeProducts&) = delete;
  LargeProducts& operator=(const LargeProducts&) = delete;

  /// Whether the library has something for this shape, these types and what comes behind.
  bool can_run(const LargeProduct& product);
  /// False when it has not.
  bool run(CudaStream& stream, const LargeProduct& product);

 private:
  // m, n, k, what the epilogue does, and how the matrices are aligned.
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::uint32_t, std::uint32_t>;
  struct Plan {
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;
    cublasLtMatmulAlgo_t algo{};
    bool is_usable = false;
    bool is_chosen = false;  // the algorithm has been compared with others
  };

  LargeProducts(Device& device, std::unique_ptr<const CublasLtLibrary> library,
                cublasLtHandle_t handle, Buffer workspace)
      : device_(device),
        library_(std::move(library)),
        handle_(handle),
        workspace_(std::move(workspace)) {}

  Plan& plan_for(const LargeProduct& product, std::uint32_t alignment);
  void make_plan(const LargeProduct& product, std::uint32_t alignment, Plan& plan);
  std::vector<cublasLtMatmulAlgo_t> propose(const Plan& plan, std::uint32_t alignment,
                                            std::size_t workspace_bytes, int most) const;
  void choose(CudaStream& stream, const LargeProduct& product, std::uint32_t alignment, Plan& plan);
  std::optional<cublasLtMatmulAlgo_t> compare(CudaStream& stream, const LargeProduct& product,
                                              std::uint32_t alignment);
  MatmulCall call_of(const LargeProduct& product, const Plan& plan) const;
  void drop(Plan& plan) const;
  bool set_scales(const LargeProduct& product, const Plan& plan) const;
  void drop_plans();

  Device& device_;
  std::unique_ptr<const CublasLtLibrary> library_;
  cublasLtHandle_t handle_;
  Buffer workspace_;
  ProductChoices choices_;
  std::map<Key, Plan> plans_;
};

}  // namespace fovea::cuda
