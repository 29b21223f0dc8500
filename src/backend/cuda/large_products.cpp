#include "backend/cuda/large_products.h"

#include <algorithm>

#include "base/error.h"
#include "base/try.h"

namespace fovea::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32}
                                        << 20;  // what Hopper's kernels like to have
constexpr std::size_t kMostPlans = 4096;
constexpr std::uint32_t kUsualAlignment = 256;  // of memory that the device allocates
constexpr std::uint32_t kLeastAlignment = 8;    // of bf16, whose rows may be 4 mod 8 elements long
constexpr std::uint32_t kLeastAlignmentOf8Bits = 16;

bool is_f8(const LargeProduct& p) { return p.x_scale != nullptr; }

// What all rows of all matrices of a product are aligned to; 0 when that is too little.
std::uint32_t alignment_of(const LargeProduct& p) {
  std::uintptr_t bits = 0;
  for (const void* matrix : {p.x, p.weight, p.add, static_cast<const void*>(p.y)}) {
    bits |= reinterpret_cast<std::uintptr_t>(matrix);
  }
  const auto element = static_cast<std::uintptr_t>(is_f8(p) ? 1 : 2);
  const std::uintptr_t rows = static_cast<std::uintptr_t>(p.k) * element |
                              static_cast<std::uintptr_t>(p.n) * (p.y_is_f32 ? 4 : 2);
  constexpr std::uint32_t kOfRows = 16;  // more is not asked of rows
  for (std::uint32_t alignment : {kUsualAlignment, kOfRows, kLeastAlignment}) {
    if (is_f8(p) && alignment < kLeastAlignmentOf8Bits) break;
    if (bits % alignment == 0 && rows % std::min(alignment, kOfRows) == 0) return alignment;
  }
  return 0;
}

}  // namespace

Result<std::unique_ptr<LargeProducts>> LargeProducts::create(Device& device) {
  FOVEA_TRY(auto library, CublasLtLibrary::load());
  FOVEA_TRY(Buffer workspace, Buffer::create(device, kWorkspaceBytes));
  cublasLtHandle_t handle = nullptr;
  const cublasStatus_t status = library->create(&handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return error(ErrorCode::kUnsupported, "cuBLASLt does not start: status {}",
                 static_cast<int>(status));
  }
  return std::unique_ptr<LargeProducts>(
      new LargeProducts(std::move(library), handle, std::move(workspace)));
}

LargeProducts::~LargeProducts() {
  drop_plans();
  library_->destroy(handle_);
}

void LargeProducts::drop_plans() {
  for (auto& [key, plan] : plans_) {
    if (plan.desc != nullptr) library_->desc_destroy(plan.desc);
    for (const cublasLtMatrixLayout_t layout : {plan.weight, plan.x, plan.y}) {
      if (layout != nullptr) library_->layout_destroy(layout);
    }
  }
  plans_.clear();
}

LargeProducts::Plan& LargeProducts::plan_for(const LargeProduct& p, std::uint32_t alignment) {
  const int epilogue = (p.bias != nullptr ? 1 : 0) | (p.gelu_tanh ? 2 : 0) | (p.y_is_f32 ? 4 : 0) |
                       (p.add != nullptr ? 8 : 0) | (is_f8(p) ? 16 : 0);
  const Key key{p.m, p.n, p.k, epilogue, alignment};
  const auto found = plans_.find(key);
  if (found != plans_.end()) return found->second;
  if (plans_.size() >= kMostPlans) drop_plans();
  Plan& plan = plans_[key];
  make_plan(p, alignment, plan);
  return plan;
}

// The library thinks in columns: y^T [n, m] = weight [n, k] . x^T [k, m], where a row-major [r, c]
// is a column-major [c, r].
void LargeProducts::make_plan(const LargeProduct& p, std::uint32_t alignment, Plan& plan) {
  const CublasLtLibrary& lt = *library_;
  const auto ok = [](cublasStatus_t status) { return status == CUBLAS_STATUS_SUCCESS; };
  const auto m = static_cast<std::uint64_t>(p.m), n = static_cast<std::uint64_t>(p.n),
             k = static_cast<std::uint64_t>(p.k);
  const cudaDataType_t type = is_f8(p) ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
  const cudaDataType_t y_type = p.y_is_f32 ? CUDA_R_32F : CUDA_R_16BF;
  if (!ok(lt.desc_create(&plan.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F)) ||
      !ok(lt.layout_create(&plan.weight, type, k, n, p.k)) ||
      !ok(lt.layout_create(&plan.x, type, k, m, p.k)) ||
      !ok(lt.layout_create(&plan.y, y_type, n, m, p.n))) {
    return;
  }
  const cublasOperation_t transpose = CUBLAS_OP_T;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  if (p.gelu_tanh) {
    epilogue = p.bias != nullptr ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
  } else if (p.bias != nullptr) {
    epilogue = CUBLASLT_EPILOGUE_BIAS;
  }
  if (!ok(lt.desc_set(plan.desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose)) ||
      !ok(lt.desc_set(plan.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue)) ||
      (p.bias != nullptr &&
       (!ok(lt.desc_set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &y_type, sizeof y_type)) ||
        !ok(lt.desc_set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias))))) {
    return;
  }
  if (is_f8(p)) {
    // One scale for each row of both; sums are kept a little less exactly than they could be, which
    // is nothing beside what rounding to eight bits has cost.
    const auto mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    const std::int8_t fast = 1;
    if (!ok(lt.desc_set(plan.desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode)) ||
        !ok(lt.desc_set(plan.desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode)) ||
        !ok(lt.desc_set(plan.desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast)) ||
        !set_scales(p, plan)) {
      return;
    }
  }
  cublasLtMatmulPreference_t preference = nullptr;
  if (!ok(lt.preference_create(&preference))) return;
  const std::size_t workspace = workspace_.size_bytes();
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  // Where the depth is shared out, the shares are summed up in f32 and not in the type of y.
  const std::uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  bool is_set = ok(lt.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                     &workspace, sizeof workspace)) &&
                ok(lt.preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                     &schemes, sizeof schemes));
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    is_set = is_set && ok(lt.preference_set(preference, attribute, &alignment, sizeof alignment));
  }
  plan.is_usable = is_set &&
                   ok(lt.get_heuristic(handle_, plan.desc, plan.weight, plan.x, plan.y, plan.y,
                                       preference, 1, &result, &found)) &&
                   found > 0;
  plan.algo = result.algo;
  lt.preference_destroy(preference);
}

bool LargeProducts::set_scales(const LargeProduct& p, const Plan& plan) const {
  return library_->desc_set(plan.desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &p.weight_scale,
                            sizeof p.weight_scale) == CUBLAS_STATUS_SUCCESS &&
         library_->desc_set(plan.desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &p.x_scale,
                            sizeof p.x_scale) == CUBLAS_STATUS_SUCCESS;
}

bool LargeProducts::can_run(const LargeProduct& p) {
  const std::uint32_t alignment = alignment_of(p);
  return alignment != 0 && plan_for(p, alignment).is_usable;
}

bool LargeProducts::run(CudaStream& stream, const LargeProduct& p) {
  const std::uint32_t alignment = alignment_of(p);
  if (alignment == 0) return false;
  Plan& plan = plan_for(p, alignment);
  if (!plan.is_usable) return false;
  if (p.bias != nullptr && library_->desc_set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias,
                                              sizeof p.bias) != CUBLAS_STATUS_SUCCESS) {
    return false;
  }
  if (is_f8(p) && !set_scales(p, plan)) return false;
  const float one = 1, beta = p.add != nullptr ? 1.0f : 0.0f;
  const cublasStatus_t status =
      library_->matmul(handle_, plan.desc, &one, p.weight, plan.weight, p.x, plan.x, &beta,
                       p.add != nullptr ? p.add : p.y, plan.y, p.y, plan.y, &plan.algo,
                       workspace_.data(), workspace_.size_bytes(), stream.handle());
  if (status == CUBLAS_STATUS_SUCCESS) return true;
  stream.fail(error(ErrorCode::kDeviceLost, "cuBLASLt, {} x {} x {}: status {}", p.m, p.n, p.k,
                    static_cast<int>(status)));
  return true;
}

}  // namespace fovea::cuda
