#include "backend/cuda/large_products.h"

#include "base/error.h"
#include "base/try.h"

namespace fovea::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32}
                                        << 20;  // what Hopper's kernels like to have
constexpr std::size_t kMostPlans = 4096;
constexpr std::uint32_t kUsualAlignment = 256;  // of memory that the device allocates
constexpr std::uint32_t kLeastAlignment = 16;

// What all matrices of a product are aligned to; 0 when that is too little.
std::uint32_t alignment_of(const LargeProduct& p) {
  std::uintptr_t bits = 0;
  for (const void* matrix : {p.x, p.weight, p.add, static_cast<const void*>(p.y)}) {
    bits |= reinterpret_cast<std::uintptr_t>(matrix);
  }
  if (bits % kUsualAlignment == 0) return kUsualAlignment;
  return bits % kLeastAlignment == 0 ? kLeastAlignment : 0;
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
                       (p.add != nullptr ? 8 : 0);
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
  const cudaDataType_t y_type = p.y_is_f32 ? CUDA_R_32F : CUDA_R_16BF;
  if (!ok(lt.desc_create(&plan.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F)) ||
      !ok(lt.layout_create(&plan.weight, CUDA_R_16BF, k, n, p.k)) ||
      !ok(lt.layout_create(&plan.x, CUDA_R_16BF, k, m, p.k)) ||
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
  cublasLtMatmulPreference_t preference = nullptr;
  if (!ok(lt.preference_create(&preference))) return;
  const std::size_t workspace = workspace_.size_bytes();
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  bool is_set = ok(lt.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                     &workspace, sizeof workspace));
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

bool LargeProducts::run(CudaStream& stream, const LargeProduct& p) {
  const std::uint32_t alignment = alignment_of(p);
  if (alignment == 0) return false;
  Plan& plan = plan_for(p, alignment);
  if (!plan.is_usable) return false;
  if (p.bias != nullptr && library_->desc_set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias,
                                              sizeof p.bias) != CUBLAS_STATUS_SUCCESS) {
    return false;
  }
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
