#include "backend/cuda/cuda_stream.h"

#include <cstring>

#include "base/math.h"
#include "base/try.h"

namespace fovea::cuda {
namespace {

constexpr std::size_t kStagingBytes = std::size_t{16} << 20;
constexpr std::size_t kLargestStaged = std::size_t{4} << 20;

}  // namespace

Result<std::unique_ptr<CudaStream>> CudaStream::create(int device_index) {
  cudaStream_t handle = nullptr;
  cudaError_t status = cudaSetDevice(device_index);
  if (status == cudaSuccess) status = cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking);
  if (status != cudaSuccess) return cuda_error(ErrorCode::kDeviceLost, status, "making a stream");
  auto staging = PinnedMemory::create(kStagingBytes);
  if (!staging.ok()) {
    cudaStreamDestroy(handle);
    return std::move(staging).error();
  }
  return std::unique_ptr<CudaStream>(
      new CudaStream(device_index, handle, std::move(staging).value()));
}

CudaStream::~CudaStream() {
  cudaSetDevice(device_index_);
  cudaStreamSynchronize(handle_);
  cudaStreamDestroy(handle_);
}

void CudaStream::fail(Error error) {
  if (!failure_) failure_ = std::move(error);
}

bool CudaStream::check(cudaError_t status, std::string_view doing) {
  if (status == cudaSuccess) return true;
  fail(cuda_error(ErrorCode::kDeviceLost, status, doing));
  return false;
}

std::byte* CudaStream::stage(std::size_t size) {
  if (size > kLargestStaged) return nullptr;
  const std::size_t room = round_up(size, std::size_t{256});
  if (staged_bytes_ + room > staging_.size_bytes()) {
    // Everything staged so far has been copied then; downloads wait for synchronize().
    if (!downloads_.empty()) return nullptr;
    check(cudaStreamSynchronize(handle_), "waiting for copies");
    staged_bytes_ = 0;
  }
  std::byte* place = staging_.data() + staged_bytes_;
  staged_bytes_ += room;
  return place;
}

void CudaStream::upload(std::span<const std::byte> source, TensorView destination) {
  FOVEA_CHECK(source.size() == destination.size_bytes(), "{} bytes into {}", source.size(),
              destination.size_bytes());
  if (source.empty() || !check(cudaSetDevice(device_index_), "choosing the device")) return;
  const void* from = source.data();
  if (std::byte* staged = stage(source.size())) {
    std::memcpy(staged, source.data(), source.size());
    from = staged;
  }
  // Pageable memory has been read when the call returns.
  check(cudaMemcpyAsync(destination.data, from, source.size(), cudaMemcpyDefault, handle_),
        "copying to the device");
}

void CudaStream::download(TensorView source, std::span<std::byte> destination) {
  FOVEA_CHECK(destination.size() == source.size_bytes(), "{} bytes into {}", source.size_bytes(),
              destination.size());
  if (destination.empty() || !check(cudaSetDevice(device_index_), "choosing the device")) return;
  std::byte* staged = stage(destination.size());
  if (staged != nullptr) downloads_.push_back({staged, destination});
  check(cudaMemcpyAsync(staged != nullptr ? staged : destination.data(), source.data,
                        destination.size(), cudaMemcpyDefault, handle_),
        "copying from the device");
}

Status CudaStream::synchronize() {
  check(cudaSetDevice(device_index_), "choosing the device");
  check(cudaStreamSynchronize(handle_), "running on the device");
  staged_bytes_ = 0;
  const std::vector<Download> downloads = std::exchange(downloads_, {});
  if (failure_) return *std::exchange(failure_, std::nullopt);
  for (const Download& download : downloads) {
    std::memcpy(download.destination.data(), download.staged, download.destination.size());
  }
  return {};
}

}  // namespace fovea::cuda
