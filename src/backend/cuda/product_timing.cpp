#include "backend/cuda/product_timing.h"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "backend/buffer.h"

namespace fovea::cuda {
namespace {

constexpr std::size_t kCacheBytes = std::size_t{64} << 20;  // more than a second cache holds
constexpr int kRounds = 2, kFinalRounds = 4;
constexpr std::size_t kFinalists = 2;
constexpr double kClearly = 0.99;  // of the first one's time

// Two events, to time what lies between them.
class StopWatch {
 public:
  StopWatch() {
    is_usable_ = cudaEventCreate(&begin_) == cudaSuccess && cudaEventCreate(&end_) == cudaSuccess;
  }
  ~StopWatch() {
    if (begin_ != nullptr) cudaEventDestroy(begin_);
    if (end_ != nullptr) cudaEventDestroy(end_);
  }
  StopWatch(const StopWatch&) = delete;
  StopWatch& operator=(const StopWatch&) = delete;

  bool is_usable() const { return is_usable_; }
  bool start(cudaStream_t stream) { return cudaEventRecord(begin_, stream) == cudaSuccess; }
  /// Waits. Milliseconds.
  std::optional<double> stop(cudaStream_t stream) {
    float ms = 0;
    if (cudaEventRecord(end_, stream) != cudaSuccess || cudaEventSynchronize(end_) != cudaSuccess ||
        cudaEventElapsedTime(&ms, begin_, end_) != cudaSuccess) {
      return std::nullopt;
    }
    return ms;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  bool is_usable_ = false;
};

struct Timed {
  std::size_t index;
  double ms;
};

}  // namespace

cublasStatus_t MatmulCall::run(cudaStream_t stream, const cublasLtMatmulAlgo_t& algo) const {
  const float one = 1, beta = add != nullptr ? 1.0f : 0.0f;
  return library->matmul(handle, desc, &one, weight, weight_layout, x, x_layout, &beta,
                         add != nullptr ? add : y, y_layout, y, y_layout, &algo, workspace,
                         workspace_bytes, stream);
}

std::optional<cublasLtMatmulAlgo_t> fastest_algorithm(
    Device& device, CudaStream& stream, const MatmulCall& call,
    std::span<const cublasLtMatmulAlgo_t> algorithms) {
  auto caches = Buffer::create(device, kCacheBytes);
  StopWatch watch;
  if (!caches.ok() || !watch.is_usable()) return std::nullopt;
  cudaStream_t on = stream.handle();
  // The least of some rounds; nothing when the algorithm does not run.
  const auto time = [&](std::size_t index, int rounds) -> std::optional<double> {
    if (call.run(on, algorithms[index]) != CUBLAS_STATUS_SUCCESS) return std::nullopt;
    double least = std::numeric_limits<double>::infinity();
    for (int round = 0; round < rounds; ++round) {
      if (cudaMemsetAsync(caches->data(), 0, kCacheBytes, on) != cudaSuccess || !watch.start(on) ||
          call.run(on, algorithms[index]) != CUBLAS_STATUS_SUCCESS) {
        return std::nullopt;
      }
      const std::optional<double> ms = watch.stop(on);
      if (!ms) return std::nullopt;
      least = std::min(least, *ms);
    }
    return least;
  };
  std::vector<Timed> all;
  for (std::size_t i = 0; i < algorithms.size(); ++i) {
    if (const std::optional<double> ms = time(i, kRounds)) all.push_back({i, *ms});
  }
  if (all.empty()) return std::nullopt;
  const std::size_t first = all.front().index;
  std::ranges::sort(all, {}, &Timed::ms);
  all.resize(std::min(all.size(), kFinalists));
  if (std::ranges::find(all, first, &Timed::index) == all.end()) all.push_back({first, 0});
  double first_ms = std::numeric_limits<double>::infinity();
  for (Timed& finalist : all) {
    finalist.ms = time(finalist.index, kFinalRounds).value_or(first_ms);
    if (finalist.index == first) first_ms = finalist.ms;
  }
  const Timed best = *std::ranges::min_element(all, {}, &Timed::ms);
  return algorithms[best.ms < kClearly * first_ms ? best.index : first];
}

}  // namespace fovea::cuda
