#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>

namespace fovea {

/// How long the runtime's own copy of `bytes`, read and written together, takes on the device in
/// use: one behind another over 1 GiB, so that no cache has any of it. Microseconds, the least of a
/// few rounds; 0 when the device fails or has no such memory. A yardstick for what reads weights.
inline double cuda_copy_us(std::size_t bytes) {
  constexpr std::size_t kPool = std::size_t{1} << 30;
  constexpr int kCopies = 64, kRounds = 5;
  const std::size_t half = bytes / 2, places = kPool / bytes;
  void* pool = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  bool works = places > 0 && cudaMalloc(&pool, kPool) == cudaSuccess &&
               cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess;
  float least = 0;
  for (int round = 0; works && round < kRounds; ++round) {
    float ms = 0;
    works = cudaEventRecord(begin) == cudaSuccess;
    for (std::size_t i = 0; works && i < kCopies; ++i) {
      std::byte* from = static_cast<std::byte*>(pool) + i % places * bytes;
      works = cudaMemcpyAsync(from + half, from, half, cudaMemcpyDeviceToDevice) == cudaSuccess;
    }
    works = works && cudaEventRecord(end) == cudaSuccess &&
            cudaEventSynchronize(end) == cudaSuccess &&
            cudaEventElapsedTime(&ms, begin, end) == cudaSuccess;
    if (round == 0 || ms < least) least = ms;
  }
  if (begin != nullptr) cudaEventDestroy(begin);
  if (end != nullptr) cudaEventDestroy(end);
  cudaFree(pool);
  return works ? 1e3 * static_cast<double>(least) / kCopies : 0;
}

}  // namespace fovea
