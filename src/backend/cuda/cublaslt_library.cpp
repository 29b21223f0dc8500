#include "backend/cuda/cublaslt_library.h"

#include <dlfcn.h>

#include "base/error.h"

namespace fovea::cuda {

Result<std::unique_ptr<const CublasLtLibrary>> CublasLtLibrary::load() {
  void* handle = nullptr;
  std::string reason;
  // The interface used here is the same in both.
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) break;
    if (reason.empty()) reason = dlerror();
  }
  if (handle == nullptr) return error(ErrorCode::kUnsupported, "{}", reason);
  std::unique_ptr<CublasLtLibrary> library(new CublasLtLibrary(handle));
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr) missing = name;
  };
  find(library->create, "cublasLtCreate");
  find(library->destroy, "cublasLtDestroy");
  find(library->version, "cublasLtGetVersion");
  find(library->matmul, "cublasLtMatmul");
  find(library->algo_check, "cublasLtMatmulAlgoCheck");
  find(library->get_heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(library->desc_create, "cublasLtMatmulDescCreate");
  find(library->desc_destroy, "cublasLtMatmulDescDestroy");
  find(library->desc_set, "cublasLtMatmulDescSetAttribute");
  find(library->layout_create, "cublasLtMatrixLayoutCreate");
  find(library->layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(library->preference_create, "cublasLtMatmulPreferenceCreate");
  find(library->preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(library->preference_set, "cublasLtMatmulPreferenceSetAttribute");
  if (missing != nullptr) return error(ErrorCode::kUnsupported, "cuBLASLt has no {}", missing);
  return std::unique_ptr<const CublasLtLibrary>(std::move(library));
}

CublasLtLibrary::~CublasLtLibrary() { dlclose(handle_); }

}  // namespace fovea::cuda
