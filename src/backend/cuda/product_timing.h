#pragma once

#include <optional>
#include <span>

#include "backend/cuda/cublaslt_library.h"
#include "backend/cuda/cuda_stream.h"
#include "backend/device.h"

namespace fovea::cuda {

/// A product as the library takes it, but for the algorithm.
struct MatmulCall {
  const CublasLtLibrary* library;
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t desc;
  cublasLtMatrixLayout_t weight_layout, x_layout, y_layout;
  const void* weight;
  const void* x;
  const void* add;  ///< null = none; may be y
  void* y;
  void* workspace;
  std::size_t workspace_bytes;

  /// Enqueues it.
  cublasStatus_t run(cudaStream_t stream, const cublasLtMatmulAlgo_t& algo) const;
};

/// Runs a product with each of the algorithms, with cold caches, waits, and names the fastest; the
/// first when none is clearly faster. Nothing when they cannot be run, or there is no memory to
/// fill the caches with.
std::optional<cublasLtMatmulAlgo_t> fastest_algorithm(
    Device& device, CudaStream& stream, const MatmulCall& call,
    std::span<const cublasLtMatmulAlgo_t> algorithms);

}  // namespace fovea::cuda
