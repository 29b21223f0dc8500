#include "backend/cuda/cuda_memory.h"

#include <algorithm>

#include "backend/cuda/cuda_error.h"
#include "base/guard.h"

namespace fovea::cuda {
namespace {

constexpr std::size_t kMostKept = std::size_t{1} << 30;
constexpr std::size_t kLargestKept = kMostKept / 4;

}  // namespace

CudaMemory::~CudaMemory() {
  cudaSetDevice(device_index_);
  while (!kept_.empty()) release_oldest();
}

bool CudaMemory::is_done(const Kept& kept) {
  return std::ranges::all_of(kept.uses,
                             [](cudaEvent_t use) { return cudaEventQuery(use) == cudaSuccess; });
}

void CudaMemory::destroy_events(Kept& kept) noexcept {
  for (const cudaEvent_t use : kept.uses) cudaEventDestroy(use);
  kept.uses.clear();
}

void CudaMemory::release_oldest() noexcept {
  Kept& oldest = kept_.front();
  destroy_events(oldest);
  cudaFree(oldest.data);
  kept_bytes_ -= oldest.size_bytes;
  kept_.pop_front();
}

std::byte* CudaMemory::take_kept(std::size_t size_bytes) {
  const auto found = std::ranges::find_if(
      kept_, [&](const Kept& kept) { return kept.size_bytes == size_bytes && is_done(kept); });
  if (found == kept_.end()) return nullptr;
  std::byte* const data = found->data;
  destroy_events(*found);
  kept_bytes_ -= size_bytes;
  kept_.erase(found);
  return data;
}

Result<std::byte*> CudaMemory::allocate(std::size_t size_bytes) {
  size_bytes = std::max<std::size_t>(size_bytes, 1);
  const std::lock_guard lock(mutex_);
  cudaError_t status = cudaSetDevice(device_index_);
  if (status == cudaSuccess) {
    if (std::byte* const kept = take_kept(size_bytes)) {
      const Status noted = guarded([&] { sizes_.emplace(kept, size_bytes); });
      if (noted.ok()) return kept;
      cudaFree(kept);
      return noted.error();
    }
  }
  void* memory = nullptr;
  if (status == cudaSuccess) status = cudaMalloc(&memory, size_bytes);
  if (status == cudaErrorMemoryAllocation && !kept_.empty()) {
    cudaGetLastError();
    while (!kept_.empty()) release_oldest();
    status = cudaMalloc(&memory, size_bytes);
  }
  if (status != cudaSuccess) {
    cudaGetLastError();  // a failed allocation is this caller's alone
    // A size beyond every device is an invalid value to the runtime.
    const bool is_too_large =
        status == cudaErrorMemoryAllocation || status == cudaErrorInvalidValue;
    return cuda_error(is_too_large ? ErrorCode::kResourceExhausted : ErrorCode::kDeviceLost, status,
                      fmt::format("allocating {} bytes on cuda:{}", size_bytes, device_index_));
  }
  auto* const data = static_cast<std::byte*>(memory);
  const Status noted = guarded([&] { sizes_.emplace(data, size_bytes); });
  if (noted.ok()) return data;
  cudaFree(data);
  return noted.error();
}

// Throws without memory to note it; the piece is the caller's then.
void CudaMemory::keep(std::byte* data, std::size_t size_bytes) {
  Kept kept{data, size_bytes, {}};
  kept.uses.reserve(streams_.size());
  bool is_noted = true;
  for (const cudaStream_t stream : streams_) {
    cudaEvent_t use = nullptr;
    is_noted = is_noted && cudaEventCreateWithFlags(&use, cudaEventDisableTiming) == cudaSuccess;
    if (use != nullptr) kept.uses.push_back(use);
    is_noted = is_noted && cudaEventRecord(use, stream) == cudaSuccess;
  }
  const Status stored =
      is_noted ? guarded([&] { kept_.push_back(kept); }) : Status(out_of_memory());
  if (!stored.ok()) {
    destroy_events(kept);
    cudaFree(data);
    return;
  }
  kept_bytes_ += size_bytes;
  while (kept_bytes_ > kMostKept) release_oldest();
}

void CudaMemory::deallocate(std::byte* data) noexcept {
  const std::lock_guard lock(mutex_);
  cudaSetDevice(device_index_);
  const auto found = sizes_.find(data);
  if (found == sizes_.end()) return;
  const std::size_t size_bytes = found->second;
  sizes_.erase(found);
  if (size_bytes > kLargestKept || !guarded([&] { keep(data, size_bytes); }).ok()) cudaFree(data);
}

void CudaMemory::watch(cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  streams_.push_back(stream);
}

void CudaMemory::forget(cudaStream_t stream) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase(streams_, stream);
}

std::size_t CudaMemory::free_bytes() {
  const std::lock_guard lock(mutex_);
  std::size_t free = 0, total = 0;
  if (cudaSetDevice(device_index_) != cudaSuccess) return 0;
  while (!kept_.empty()) release_oldest();
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? free : 0;
}

}  // namespace fovea::cuda
