#include "backend/cpu/cpu_device.h"

#include <cstring>
#include <fstream>

#include "backend/cpu/aligned_memory.h"
#include "backend/cpu/cpu_ops.h"
#include "backend/stream.h"
#include "base/error.h"

namespace fovea::cpu {
namespace {

// Operations have finished when they return, so there is nothing to wait for and nothing to lose.
class CpuStream final : public Stream {
 public:
  void upload(std::span<const std::byte> source, TensorView destination) override {
    FOVEA_CHECK(source.size() == destination.size_bytes(), "{} bytes into {}", source.size(),
                destination.size_bytes());
    if (!source.empty()) std::memcpy(destination.data, source.data(), source.size());
  }
  void download(TensorView source, std::span<std::byte> destination) override {
    FOVEA_CHECK(destination.size() == source.size_bytes(), "{} bytes into {}", source.size_bytes(),
                destination.size());
    if (!destination.empty()) std::memcpy(destination.data(), source.data, destination.size());
  }
  Status synchronize() override { return {}; }
};

}  // namespace

CpuDevice::CpuDevice(int num_threads, const KernelTable& kernels)
    : kernels_(kernels), pool_(num_threads) {}

CpuDevice::~CpuDevice() = default;

Result<std::unique_ptr<Device>> CpuDevice::create(int num_threads, const KernelTable& kernels) {
  std::unique_ptr<CpuDevice> device(new CpuDevice(num_threads, kernels));
  device->ops_ = CpuOps::create(device->pool_, kernels);
  if (device->ops_ == nullptr) {
    return error(ErrorCode::kResourceExhausted, "no memory for the scratch of {} threads",
                 num_threads);
  }
  return std::unique_ptr<Device>(std::move(device));
}

std::string CpuDevice::description() const {
  const int threads = pool_.num_threads();
  return fmt::format("{}, {}, {} thread{}", processor_name(), kernels_.name, threads,
                     threads == 1 ? "" : "s");
}

Result<std::byte*> CpuDevice::allocate(std::size_t size_bytes) {
  AlignedMemory memory = allocate_aligned(size_bytes);
  if (memory == nullptr) {
    return error(ErrorCode::kResourceExhausted, "no host memory left for {} bytes", size_bytes);
  }
  return memory.release();
}

void CpuDevice::deallocate(std::byte* data) noexcept { AlignedDelete{}(data); }

// What Linux could give without swapping; it counts what file caches would give back.
std::size_t CpuDevice::free_memory() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  for (std::size_t kibibytes = 0; file >> key >> kibibytes; file.ignore(64, '\n')) {
    if (key == "MemAvailable:") return kibibytes << 10;
  }
  return 0;
}

Result<std::unique_ptr<Stream>> CpuDevice::make_stream() {
  return std::unique_ptr<Stream>(std::make_unique<CpuStream>());
}

Ops& CpuDevice::ops() { return *ops_; }

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (!line.starts_with("model name") || colon == std::string::npos) continue;
    const std::size_t begin = line.find_first_not_of(' ', colon + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return "CPU";
}

}  // namespace fovea::cpu
