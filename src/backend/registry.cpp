#include "backend/registry.h"

#include <charconv>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/cpu_isa.h"
#include "backend/emulator/emulator_device.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "base/try.h"

#if FOVEA_CUDA
#include "backend/cuda/cuda_device.h"
#endif

namespace fovea {
namespace {

Result<std::unique_ptr<Device>> create_cpu(const DeviceOptions& options) {
  constexpr int kMostThreads = 1024;
  if (options.num_threads < 0 || options.num_threads > kMostThreads) {
    return invalid_argument("{} threads: give 1 to {}, or 0 for every processor",
                            options.num_threads, kMostThreads);
  }
  FOVEA_TRY(const cpu::KernelTable* kernels, cpu::choose_kernels(options.cpu_isa));
  const int num_threads = options.num_threads > 0 ? options.num_threads : usable_processors();
  return cpu::CpuDevice::create(num_threads, *kernels);
}

#if FOVEA_CUDA
BackendInfo describe_cuda() {
  const auto devices = cuda::probe();
  if (!devices.ok()) return {"cuda", false, devices.error().message};
  std::string text;
  for (std::size_t i = 0; i < devices->size(); ++i) {
    text += fmt::format("{}cuda:{}: {}", i == 0 ? "" : "; ", i, (*devices)[i]);
  }
  return {"cuda", true, text};
}

Result<std::unique_ptr<Device>> create_cuda(std::string_view name, const DeviceOptions& options) {
  cuda::CudaOptions cuda_options{.batch_invariant = options.batch_invariant};
  const std::string_view index = name.substr(std::min<std::size_t>(name.size(), 5));
  const auto [end, status] =
      std::from_chars(index.data(), index.data() + index.size(), cuda_options.device_index);
  if (name != "cuda" && (status != std::errc() || end != index.data() + index.size())) {
    return invalid_argument("device \"{}\": cuda, or cuda: and a number", name);
  }
  return cuda::create_cuda_device(cuda_options);
}
#else
BackendInfo describe_cuda() { return {"cuda", false, "not in this build"}; }

Result<std::unique_ptr<Device>> create_cuda(std::string_view, const DeviceOptions&) {
  return error(ErrorCode::kUnsupported,
               "this build has no code for NVIDIA devices: configure it with FOVEA_CUDA=ON");
}
#endif

}  // namespace

std::vector<BackendInfo> list_backends() {
  BackendInfo cpu_info;
  cpu_info.name = "cpu";
  cpu_info.available = true;
  std::string isas;
  for (const cpu::KernelTable* table : cpu::usable_kernels()) {
    isas += (isas.empty() ? "" : ", ") + std::string(table->name);
  }
  cpu_info.description =
      fmt::format("{}, {} usable processors; {}", cpu::processor_name(), usable_processors(), isas);
  BackendInfo emulator_info;
  emulator_info.name = "emulator";
  emulator_info.available = true;
  emulator_info.description = "kernels for GPUs on the processor, for tests: very slow";
  return {cpu_info, describe_cuda(), emulator_info};
}

Result<std::unique_ptr<Device>> create_device(std::string_view name, const DeviceOptions& options) {
  if (name == "auto" || name == "cpu") return create_cpu(options);
  if (name == "cuda" || name.starts_with("cuda:")) return create_cuda(name, options);
  if (name == "emulator") return emulator::create_emulator();
  return invalid_argument("unknown device \"{}\": auto, cpu, cuda, cuda:N or emulator", name);
}

}  // namespace fovea
