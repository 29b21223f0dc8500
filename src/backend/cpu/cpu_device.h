#pragma once

#include <memory>
#include <string>

#include "backend/cpu/isa/kernel_table.h"
#include "backend/device.h"
#include "base/thread_pool.h"

namespace fovea::cpu {

class CpuOps;

/// The processor as a device: memory of the host, a thread pool, the kernels of one instruction
/// set. Its streams do all work before a call returns.
class CpuDevice final : public Device {
 public:
  /// Errors: kResourceExhausted when there is no memory for the threads' scratch.
  static Result<std::unique_ptr<Device>> create(int num_threads, const KernelTable& kernels);
  ~CpuDevice() override;

  std::string name() const override { return "cpu"; }
  std::string description() const override;
  Result<std::byte*> allocate(std::size_t size_bytes) override;
  void deallocate(std::byte* data) noexcept override;
  std::size_t free_memory() override;
  Result<std::unique_ptr<Stream>> make_stream() override;
  Ops& ops() override;

 private:
  CpuDevice(int num_threads, const KernelTable& kernels);

  const KernelTable& kernels_;
  ThreadPool pool_;
  std::unique_ptr<CpuOps> ops_;
};

/// The processor's own name ("AMD EPYC"), or "CPU" where the system does not tell.
std::string processor_name();

}  // namespace fovea::cpu
