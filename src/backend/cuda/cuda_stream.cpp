#include "backend/cuda/cuda_stream.h"

#include <cstring>

#include "backend/cuda/native_kernels.h"
#include "base/math.h"
#include "base/try.h"
#include "kernels/cuda_entries.h"

namespace fovea::cuda {

namespace {

constexpr std::size_t kStagingBytes = std::size_t{32} << 20;
constexpr std::size_t kLargestStaged = std::size_t{8} << 20;  // the crops of the largest picture

}  // namespace

bool kernels_start_early() {
  cudaFuncAttributes attributes{};
  const void* any = kernels::cuda_kernel(kernels::KernelId::moe_route).entry;
  if (cudaFuncGetAttributes(&attributes, any) != cudaSuccess) {
    cudaGetLastError();  // not the next call's
    return false;
  }
  return attributes.ptxVersion >= 90;
}

Result<std::unique_ptr<CudaStream>> CudaStream::create(int device_index, CudaMemory& memory) {
  cudaStream_t handle = nullptr;
  cudaError_t status = cudaSetDevice(device_index);
  if (status == cudaSuccess) status = cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking);
  if (status != cudaSuccess) return cuda_error(ErrorCode::kDeviceLost, status, "making a stream");
  auto staging = PinnedMemory::create(kStagingBytes);
  if (!staging.ok()) {
    cudaStreamDestroy(handle);
    return std::move(staging).error();
  }
  std::unique_ptr<CudaStream> stream(
      new CudaStream(device_index, handle, std::move(staging).value(), memory));
  memory.watch(handle);
  stream->starts_early_ = kernels_start_early();
  for (cudaEvent_t& event : stream->events_) {
    status = cudaEventCreate(&event);
    if (status != cudaSuccess) return cuda_error(ErrorCode::kDeviceLost, status, "making an event");
  }
  return stream;
}

CudaStream::~CudaStream() {
  cudaSetDevice(device_index_);
  cudaStreamSynchronize(handle_);
  memory_.forget(handle_);
  for (const cudaEvent_t event : events_) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  cudaStreamDestroy(handle_);
}

void CudaStream::fail(Error error) {
  const std::uint64_t before = last_mark_ + 1;
  if (failures_.empty() || failures_.back().before != before) {
    failures_.push_back({before, std::move(error)});
  }
}

bool CudaStream::check(cudaError_t status, std::string_view doing) {
  if (status == cudaSuccess) return true;
  fail(cuda_error(ErrorCode::kDeviceLost, status, doing));
  return false;
}

std::byte* CudaStream::stage(std::size_t size) {
  if (size > kLargestStaged) return nullptr;
  const std::size_t room = round_up(size, std::size_t{256});
  const std::size_t ring = staging_.size_bytes();
  // A copy lies in one piece: what is left at the end of the ring is passed over.
  const std::uint64_t left = ring - staged_end_ % ring;
  const std::uint64_t begin = staged_end_ + (room > left ? left : 0);
  if (begin + room - staged_begin_ > ring) {
    drain();
    return stage(size);
  }
  staged_end_ = begin + room;
  return staging_.data() + begin % ring;
}

// What a step brings and takes is small, and lies between kernels.
void CudaStream::copy_staged(std::byte* staged, TensorView device, bool is_upload) {
  const std::size_t size = device.size_bytes();
  void* const from = is_upload ? staged : device.data;
  void* const to = is_upload ? device.data : staged;
  if (!starts_early_ || size > kMostSmallCopyBytes || size % 4 != 0 ||
      reinterpret_cast<std::uintptr_t>(device.data) % 4 != 0) {
    newest_writes_ = {};
    check(cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, handle_), "copying");
    return;
  }
  check(small_copy({from, to, static_cast<int>(size / 4), is_upload}, next_launch()), "copying");
  newest_writes({{DType::kU8, {static_cast<std::int64_t>(size)}, static_cast<std::byte*>(to)}});
}

void CudaStream::upload(std::span<const std::byte> source, TensorView destination) {
  FOVEA_CHECK(source.size() == destination.size_bytes(), "{} bytes into {}", source.size(),
              destination.size_bytes());
  if (source.empty() || !check(cudaSetDevice(device_index_), "choosing the device")) return;
  if (std::byte* staged = stage(source.size())) {
    std::memcpy(staged, source.data(), source.size());
    return copy_staged(staged, destination, true);
  }
  // Pageable memory has been read when the call returns.
  check(
      cudaMemcpyAsync(destination.data, source.data(), source.size(), cudaMemcpyDefault, handle()),
      "copying to the device");
}

void CudaStream::download(TensorView source, std::span<std::byte> destination) {
  FOVEA_CHECK(destination.size() == source.size_bytes(), "{} bytes into {}", source.size_bytes(),
              destination.size());
  if (destination.empty() || !check(cudaSetDevice(device_index_), "choosing the device")) return;
  if (std::byte* staged = stage(destination.size())) {
    downloads_.push_back({last_mark_ + 1, staged, destination});
    return copy_staged(staged, source, false);
  }
  check(cudaMemcpyAsync(destination.data(), source.data, destination.size(), cudaMemcpyDefault,
                        handle()),
        "copying from the device");
}

// What came back may be handed over before anybody waits for it, and failures stay where they are.
void CudaStream::drain() {
  if (check(cudaStreamSynchronize(handle_), "waiting for copies")) hand_over(last_mark_ + 1);
  staged_begin_ = staged_end_;
}

void CudaStream::hand_over(std::uint64_t mark) {
  while (!downloads_.empty() && downloads_.front().before <= mark) {
    const Download& download = downloads_.front();
    std::memcpy(download.destination.data(), download.staged, download.destination.size());
    downloads_.pop_front();
  }
  if (mark > last_mark_) {
    staged_begin_ = staged_end_;
  } else if (has_event(mark)) {
    staged_begin_ = std::max(staged_begin_, staged_at_mark_[mark % kMarks]);
  }
}

Status CudaStream::finish(std::uint64_t mark, cudaError_t outcome) {
  // A device that is lost fails for whoever waits first.
  const bool is_lost = !check(outcome, "running on the device");
  if (is_lost) {
    downloads_.clear();
    staged_begin_ = staged_end_;
  } else {
    hand_over(mark);
  }
  last_waited_ = std::max(last_waited_, std::min(mark, last_mark_));
  std::optional<Error> failure;
  while (!failures_.empty() && (is_lost || failures_.front().before <= mark)) {
    if (!failure) failure = std::move(failures_.front().error);
    failures_.erase(failures_.begin());
  }
  if (failure) return std::move(*failure);
  return {};
}

Status CudaStream::synchronize() {
  check(cudaSetDevice(device_index_), "choosing the device");
  return finish(last_mark_ + 1, cudaStreamSynchronize(handle_));
}

std::uint64_t CudaStream::mark() {
  // The mark that had this event before is done then, should nobody have waited for it.
  if (last_mark_ >= kMarks && last_waited_ + kMarks <= last_mark_) drain();
  const std::uint64_t next = last_mark_ + 1;
  if (check(cudaSetDevice(device_index_), "choosing the device")) {
    check(cudaEventRecord(event(next), handle_), "setting a mark");
  }
  staged_at_mark_[next % kMarks] = staged_end_;
  return last_mark_ = next;
}

Status CudaStream::wait(std::uint64_t mark) {
  FOVEA_CHECK(mark <= last_mark_, "mark {} of {}", mark, last_mark_);
  if (mark <= last_waited_) return {};
  check(cudaSetDevice(device_index_), "choosing the device");
  return finish(mark, has_event(mark) ? cudaEventSynchronize(event(mark)) : cudaSuccess);
}

std::optional<double> CudaStream::ms_between(std::uint64_t begin, std::uint64_t end) {
  if (begin == 0 || begin > end || end > last_waited_ || !has_event(begin)) {
    return std::nullopt;
  }
  float ms = 0;
  if (cudaEventElapsedTime(&ms, event(begin), event(end)) != cudaSuccess) {
    cudaGetLastError();  // not the next call's
    return std::nullopt;
  }
  return ms;
}

void CudaStream::newest_writes(std::initializer_list<TensorView> tensors) {
  FOVEA_CHECK(tensors.size() <= newest_writes_.size(), "{} tensors", tensors.size());
  std::ranges::copy(tensors, newest_writes_.begin());
}

bool CudaStream::may_read_early(std::initializer_list<TensorView> tensors) const {
  if (newest_writes_[0].empty()) return false;
  for (const TensorView& written : newest_writes_) {
    for (const TensorView& read : tensors) {
      const bool overlap = !written.empty() && !read.empty() &&
                           written.data < read.data + read.size_bytes() &&
                           read.data < written.data + written.size_bytes();
      if (overlap) return false;
    }
  }
  return true;
}

}  // namespace fovea::cuda
