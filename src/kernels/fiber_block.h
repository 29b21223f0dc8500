#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace fovea {
namespace kernels {

/// The threads of one block of a kernel on the processor: fibers that take turns on the calling
/// thread and change at barriers. Deterministic. Aborts with a message when threads wait at a
/// barrier that the others never reach.
///
/// Under ThreadSanitizer every fiber counts as a thread, and nothing but barriers orders them: a
/// missing block_sync() is reported as the race that it is on a device.
///
/// One thread uses an object at a time.
class FiberBlock {
 public:
  static constexpr std::uint32_t kMaxThreads = 1024;
  static constexpr std::uint32_t kWarp = 32;

  FiberBlock();
  ~FiberBlock();
  FiberBlock(const FiberBlock&) = delete;
  FiberBlock& operator=(const FiberBlock&) = delete;

  /// What a thread of the block does; `index` is its place in the block.
  using Body = void (*)(const void* context, std::uint32_t index);

  /// Runs one block. num_threads is a multiple of 32, at most kMaxThreads.
  void run(std::uint32_t num_threads, Body body, const void* context);

  // ---- for the running fiber `index`

  void block_barrier(std::uint32_t index);
  void warp_barrier(std::uint32_t index);
  /// Puts `value` where the warp can see it, waits for the others and returns the values of all 32
  /// lanes. They stay valid up to the next exchange but one.
  const std::uint64_t* exchange(std::uint32_t index, std::uint64_t value);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kernels
}  // namespace fovea
