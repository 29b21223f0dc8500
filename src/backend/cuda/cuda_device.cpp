#include "backend/cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include "backend/cuda/cuda_error.h"
#include "backend/cuda/cuda_launcher.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/cuda_ops.h"
#include "backend/cuda/cuda_stream.h"
#include "base/try.h"

namespace fovea::cuda {
namespace {

constexpr int kLeastMajor = 8;     // bf16 instructions
constexpr int kCropsPerPass = 26;  // the two largest pictures in one pass
constexpr int kPromptsPerStep = 3;
constexpr int kStepsInFlight = 2;  // one runs, one waits

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

class CudaDevice final : public Device {
 public:
  static Result<std::unique_ptr<Device>> create(const CudaOptions& options,
                                                std::string description) {
    std::unique_ptr<CudaDevice> device(new CudaDevice(options.device_index));
    device->description_ = std::move(description);
    const cudaError_t status = cudaSetDevice(options.device_index);
    if (status != cudaSuccess) {
      return cuda_error(ErrorCode::kUnsupported, status, device->name());
    }
    FOVEA_TRY(device->ops_, CudaOps::create(*device, device->launcher_,
                                            {options.device_index, options.batch_invariant}));
    return std::unique_ptr<Device>(std::move(device));
  }

  std::string name() const override { return fmt::format("cuda:{}", index_); }
  std::string description() const override { return description_; }

  Result<std::byte*> allocate(std::size_t size_bytes) override {
    return memory_.allocate(size_bytes);
  }
  void deallocate(std::byte* data) noexcept override { memory_.deallocate(data); }
  std::size_t free_memory() override { return memory_.free_bytes(); }
  bool has_own_memory() const override { return true; }
  int crops_per_pass() const override { return kCropsPerPass; }
  int prompts_per_step() const override { return kPromptsPerStep; }
  int steps_in_flight() const override { return kStepsInFlight; }
  Result<std::unique_ptr<Stream>> make_stream() override {
    FOVEA_TRY(std::unique_ptr<Stream> stream, CudaStream::create(index_, memory_));
    return stream;
  }
  Ops& ops() override { return *ops_; }

 private:
  explicit CudaDevice(int index) : index_(index), memory_(index), launcher_(index) {}

  int index_;
  std::string description_;
  CudaMemory memory_;
  CudaLauncher launcher_;
  std::unique_ptr<Ops> ops_;
};

}  // namespace

Result<std::vector<std::string>> probe() {
  int driver = 0, runtime = 0, count = 0;
  cudaRuntimeGetVersion(&runtime);
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    cudaGetLastError();
    return error(ErrorCode::kUnsupported, "no NVIDIA driver was found");
  }
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();
    return error(ErrorCode::kUnsupported,
                 "{}; the driver supports CUDA {}, this program was built with {}",
                 cudaGetErrorString(status), version_text(driver), version_text(runtime));
  }
  std::vector<std::string> devices;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    std::string text =
        fmt::format("{}, compute capability {}.{}, {} GiB", properties.name, properties.major,
                    properties.minor, properties.totalGlobalMem >> 30);
    if (properties.major < kLeastMajor) text += " (too old: 8.0 is the least)";
    devices.push_back(std::move(text));
  }
  if (devices.empty()) return error(ErrorCode::kUnsupported, "the driver lists no device");
  return devices;
}

Result<std::unique_ptr<Device>> create_cuda_device(const CudaOptions& options) {
  FOVEA_TRY(const std::vector<std::string> devices, probe());
  if (options.device_index < 0 ||
      static_cast<std::size_t>(options.device_index) >= devices.size()) {
    return error(ErrorCode::kNotFound, "there is no device cuda:{}; there are {}",
                 options.device_index, devices.size());
  }
  const std::string& description = devices[static_cast<std::size_t>(options.device_index)];
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, options.device_index);
  if (major < kLeastMajor) return error(ErrorCode::kUnsupported, "{}", description);
  return CudaDevice::create(options, description);
}

}  // namespace fovea::cuda
