#pragma once

#include <array>
#include <cuda_runtime_api.h>
#include <deque>
#include <initializer_list>
#include <memory>
#include <optional>
#include <vector>

#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/dependent_launch.h"
#include "backend/cuda/pinned_memory.h"
#include "backend/stream.h"

namespace fovea::cuda {

/// Whether the code that the current device runs of our kernels is for compute capability 9.0 or
/// later: kernels are set up while those in front of them run, and blocks form clusters.
bool kernels_start_early();

/// A CUDA stream with pinned memory through which small copies pass: uploads are read when the call
/// returns and run when their turn comes, downloads are handed over by whoever waits for them. The
/// pinned memory is a ring; what a mark was set behind is free again once the mark has been waited
/// for. One thread at a time.
class CudaStream final : public Stream {
 public:
  /// Errors: kResourceExhausted, kDeviceLost.
  /// memory: of the device; must outlive the stream.
  static Result<std::unique_ptr<CudaStream>> create(int device_index, CudaMemory& memory);
  ~CudaStream() override;

  void upload(std::span<const std::byte> source, TensorView destination) override;
  void download(TensorView source, std::span<std::byte> destination) override;
  Status synchronize() override;
  std::uint64_t mark() override;
  Status wait(std::uint64_t mark) override;
  std::optional<double> ms_between(std::uint64_t begin, std::uint64_t end) override;

  cudaStream_t handle() {
    newest_writes_ = {};
    return handle_;
  }
  /// What the next kernel is launched on. What newest_writes() said is forgotten: that kernel's
  /// turn has come.
  KernelStream next_launch() { return {handle(), starts_early_}; }
  bool starts_early() const { return starts_early_; }
  /// Says of the kernel that was launched last, which waited for those in front of it before it let
  /// the next one start, what it writes. The next kernel may read all else without waiting. Nothing
  /// said: it may be anything.
  void newest_writes(std::initializer_list<TensorView> tensors);
  /// Whether the next kernel may read these before it waits for the one in front of it.
  bool may_read_early(std::initializer_list<TensorView> tensors) const;
  /// Keeps the first failure since the last mark for whoever waits for what comes next.
  void fail(Error error);
  /// The same for what a call of the runtime returned; false when it failed.
  bool check(cudaError_t status, std::string_view doing);

 private:
  // Marks are numbered from 1; number m has event m mod kMarks, and is forgotten kMarks later.
  static constexpr std::uint64_t kMarks = 64;

  struct Download {
    std::uint64_t before;  // the first mark behind it
    const std::byte* staged;
    std::span<std::byte> destination;
  };
  struct Failure {
    std::uint64_t before;
    Error error;
  };

  CudaStream(int device_index, cudaStream_t handle, PinnedMemory staging, CudaMemory& memory)
      : device_index_(device_index),
        handle_(handle),
        staging_(std::move(staging)),
        memory_(memory) {}

  // Room for `size` bytes of a copy; null when the copy is better made without.
  std::byte* stage(std::size_t size);
  cudaEvent_t event(std::uint64_t mark) const { return events_[mark % kMarks]; }
  // Whether the event still is this mark's; if not, the mark is done.
  bool has_event(std::uint64_t mark) const { return mark + kMarks > last_mark_; }
  // Enqueues a copy between staged host memory and the device; `device` is the device's side.
  void copy_staged(std::byte* staged, TensorView device, bool is_upload);
  // Waits for all that was enqueued, so that the ring is free.
  void drain();
  // What came back in front of a mark that is done.
  void hand_over(std::uint64_t mark);
  // The end of waiting for a mark.
  Status finish(std::uint64_t mark, cudaError_t outcome);

  int device_index_;
  cudaStream_t handle_;
  bool starts_early_ = false;
  PinnedMemory staging_;
  CudaMemory& memory_;
  // Positions in the ring count on and on.
  std::uint64_t staged_begin_ = 0;  // in use by copies that may not have run yet
  std::uint64_t staged_end_ = 0;
  std::array<cudaEvent_t, kMarks> events_{};
  std::array<std::uint64_t, kMarks> staged_at_mark_{};  // staged_end_ when the mark was set
  std::uint64_t last_mark_ = 0;
  std::uint64_t last_waited_ = 0;
  std::deque<Download> downloads_;
  std::array<TensorView, 5> newest_writes_{};  // those that are not empty
  std::vector<Failure> failures_;              // oldest first, one for each mark at most
};

}  // namespace fovea::cuda
