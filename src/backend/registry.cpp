#include "backend/registry.h"

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/cpu_isa.h"
#include "backend/emulator/emulator_device.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "base/try.h"

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
  return {cpu_info, emulator_info};
}

Result<std::unique_ptr<Device>> create_device(std::string_view name, const DeviceOptions& options) {
  if (name == "auto" || name == "cpu") return create_cpu(options);
  if (name == "emulator") return emulator::create_emulator();
  return invalid_argument("unknown device \"{}\": auto, cpu or emulator", name);
}

}  // namespace fovea
