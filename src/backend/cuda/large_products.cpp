#include "backend/cuda/large_products.h"

#include <algorithm>
#include <bit>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "base/cache_folder.h"
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

// Types of a product, and what comes behind it.
std::uint32_t kind_of(const LargeProduct& p) {
  return (p.bias != nullptr ? 1u : 0u) | (p.gelu_tanh ? 2u : 0u) | (p.y_is_f32 ? 4u : 0u) |
         (p.add != nullptr ? 8u : 0u) | (is_f8(p) ? 16u : 0u);
}

// Choices are worth something for this library on this kind of device.
std::string choices_file_name(const CublasLtLibrary& library) {
  int device = 0;
  cudaDeviceProp properties{};
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
    cudaGetLastError();  // not the next call's
  }
  std::string name = fmt::format("products-{}-{}.txt", properties.name, library.version());
  for (char& c : name) {
    const bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                          (c >= 'A' && c <= 'Z') || c == '.' || c == '-';
    if (!is_plain) c = '_';
  }
  return name;
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
  const std::string file_name = choices_file_name(*library);
  std::unique_ptr<LargeProducts> products(
      new LargeProducts(device, std::move(library), handle, std::move(workspace)));
  if (const std::optional<std::filesystem::path> folder = cache_folder()) {
    products->choices_ = ProductChoices(*folder / file_name);
  }
  return products;
}

LargeProducts::~LargeProducts() {
  drop_plans();
  library_->destroy(handle_);
}

void LargeProducts::drop_plans() {
  for (auto& [key, plan] : plans_) drop(plan);
  plans_.clear();
}

void LargeProducts::drop(Plan& plan) const {
  if (plan.desc != nullptr) library_->desc_destroy(plan.desc);
  for (const cublasLtMatrixLayout_t layout : {plan.weight, plan.x, plan.y}) {
    if (layout != nullptr) library_->layout_destroy(layout);
  }
}

LargeProducts::Plan& LargeProducts::plan_for(const LargeProduct& p, std::uint32_t alignment) {
  const Key key{p.m, p.n, p.k, kind_of(p), alignment};
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
  const std::vector<cublasLtMatmulAlgo_t> first =
      propose(plan, alignment, workspace_.size_bytes(), 1);
  plan.is_usable = !first.empty();
  if (plan.is_usable) plan.algo = first.front();
}

// The algorithms that the library thinks best of, best first.
std::vector<cublasLtMatmulAlgo_t> LargeProducts::propose(const Plan& plan, std::uint32_t alignment,
                                                         std::size_t workspace_bytes,
                                                         int most) const {
  const CublasLtLibrary& lt = *library_;
  const auto ok = [](cublasStatus_t status) { return status == CUBLAS_STATUS_SUCCESS; };
  cublasLtMatmulPreference_t preference = nullptr;
  if (!ok(lt.preference_create(&preference))) return {};
  // Where the depth is shared out, the shares are summed up in f32 and not in the type of y.
  const std::uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  bool is_set = ok(lt.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                     &workspace_bytes, sizeof workspace_bytes)) &&
                ok(lt.preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                     &schemes, sizeof schemes));
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    is_set = is_set && ok(lt.preference_set(preference, attribute, &alignment, sizeof alignment));
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<std::size_t>(most));
  int found = 0;
  if (!is_set || !ok(lt.get_heuristic(handle_, plan.desc, plan.weight, plan.x, plan.y, plan.y,
                                      preference, most, results.data(), &found))) {
    found = 0;
  }
  lt.preference_destroy(preference);
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < found; ++i) algorithms.push_back(results[static_cast<std::size_t>(i)].algo);
  return algorithms;
}

void LargeProducts::choose(CudaStream& stream, const LargeProduct& p, std::uint32_t alignment,
                           Plan& plan) {
  static_assert(sizeof(AlgorithmWords) == sizeof(cublasLtMatmulAlgo_t));
  plan.is_chosen = true;
  const ProductShape shape{bucket_of(p.m), p.n, p.k, kind_of(p), alignment};
  std::optional<cublasLtMatmulAlgo_t> algo;
  if (const AlgorithmWords* known = choices_.find(shape)) {
    algo = std::bit_cast<cublasLtMatmulAlgo_t>(*known);
  } else if ((algo = compare(stream, p, alignment))) {
    choices_.add(shape, std::bit_cast<AlgorithmWords>(*algo));
  }
  cublasLtMatmulHeuristicResult_t needs{};
  if (algo &&
      library_->algo_check(handle_, plan.desc, plan.weight, plan.x, plan.y, plan.y, &*algo,
                           &needs) == CUBLAS_STATUS_SUCCESS &&
      needs.workspaceSize <= workspace_.size_bytes()) {
    plan.algo = *algo;
  }
}
// With as many rows as share the choice: fewer take no longer, but for one more an algorithm may
// need another round of the device. In memory of their own, filled from the rows that there are.
std::optional<cublasLtMatmulAlgo_t> LargeProducts::compare(CudaStream& stream,
                                                           const LargeProduct& product,
                                                           std::uint32_t alignment) {
  LargeProduct p = product;
  p.m = bucket_of(product.m);
  const std::size_t row_bytes = static_cast<std::size_t>(p.k) * (is_f8(p) ? 1 : 2);
  const std::size_t y_bytes = static_cast<std::size_t>(p.m * p.n) * (p.y_is_f32 ? 4 : 2);
  auto x = Buffer::create(device_, static_cast<std::size_t>(p.m) * row_bytes);
  auto x_scale = Buffer::create(device_, static_cast<std::size_t>(p.m) * sizeof(float));
  auto y = Buffer::create(device_, y_bytes);
  if (!x.ok() || !x_scale.ok() || !y.ok()) return std::nullopt;
  cudaStream_t on = stream.handle();
  bool is_filled = cudaMemsetAsync(y->data(), 0, y_bytes, on) == cudaSuccess;
  const auto copy = [&](std::byte* to, const void* from, std::size_t at, std::size_t count,
                        std::size_t size) {
    is_filled = is_filled && cudaMemcpyAsync(to + at * size, from, count * size,
                                             cudaMemcpyDeviceToDevice, on) == cudaSuccess;
  };
  const auto given = static_cast<std::size_t>(product.m);
  for (std::size_t at = 0; at < static_cast<std::size_t>(p.m); at += given) {
    const std::size_t count = std::min(given, static_cast<std::size_t>(p.m) - at);
    copy(x->data(), product.x, at, count, row_bytes);
    if (is_f8(p)) copy(x_scale->data(), product.x_scale, at, count, sizeof(float));
  }
  if (!is_filled) return std::nullopt;
  p.x = x->data();
  if (is_f8(p)) p.x_scale = reinterpret_cast<const float*>(x_scale->data());
  p.y = y->data();
  if (p.add != nullptr) p.add = p.y;
  Plan plan;
  make_plan(p, alignment, plan);
  std::optional<cublasLtMatmulAlgo_t> fastest;
  if (plan.is_usable) {
    // Those that do without a workspace are asked for as well: what clears it costs more than it
    // may bring.
    constexpr int kMostOfAKind = 4;
    std::vector<cublasLtMatmulAlgo_t> algorithms =
        propose(plan, alignment, workspace_.size_bytes(), kMostOfAKind);
    const std::vector<cublasLtMatmulAlgo_t> more = propose(plan, alignment, 0, kMostOfAKind);
    algorithms.insert(algorithms.end(), more.begin(), more.end());
    fastest = fastest_algorithm(device_, stream, call_of(p, plan), algorithms);
  }
  drop(plan);
  return fastest;
}

MatmulCall LargeProducts::call_of(const LargeProduct& p, const Plan& plan) const {
  return {.library = library_.get(),
          .handle = handle_,
          .desc = plan.desc,
          .weight_layout = plan.weight,
          .x_layout = plan.x,
          .y_layout = plan.y,
          .weight = p.weight,
          .x = p.x,
          .add = p.add,
          .y = p.y,
          .workspace = workspace_.data(),
          .workspace_bytes = workspace_.size_bytes()};
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
  if (!plan.is_chosen) choose(stream, p, alignment, plan);
  const cublasStatus_t status = call_of(p, plan).run(stream.handle(), plan.algo);
  if (status == CUBLAS_STATUS_SUCCESS) return true;
  stream.fail(error(ErrorCode::kDeviceLost, "cuBLASLt, {} x {} x {}: status {}", p.m, p.n, p.k,
                    static_cast<int>(status)));
  return true;
}

}  // namespace fovea::cuda
