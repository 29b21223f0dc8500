#include "backend/emulator/emulator_device.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "backend/portable/portable_ops.h"
#include "base/error.h"
#include "base/math.h"
#include "kernels/host_entries.h"

namespace fovea::emulator {
namespace {

constexpr std::size_t kAlignment = 64;
// A device has an end: what no processor's memory holds is refused here, not when it is touched.
constexpr std::size_t kMostBytes = std::size_t{1} << 40;

class EmulatorStream final : public Stream {
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
  Status synchronize() override {
    if (!failure_) return {};
    Error failure = std::move(*failure_);
    failure_.reset();
    return failure;
  }
  void fail(Error error) {
    if (!failure_) failure_ = std::move(error);
  }

 private:
  std::optional<Error> failure_;
};

// One block after another.
class EmulatorLauncher final : public portable::Launcher {
 public:
  // Room for the words of some rows, but not of others: both are tested.
  portable::BlockRoom room() const override { return {std::size_t{128} << 10, 1, 1}; }

  void launch(Stream&, const portable::Launch& launch) override {
    const kernels::HostKernel& kernel = kernels::host_kernel(launch.kernel);
    FOVEA_CHECK(launch.threads <= kernel.max_threads && launch.threads % kernels::kWarpSize == 0,
                "{}: a block of {} threads, {} at most", kernel.name, launch.threads,
                kernel.max_threads);
    FOVEA_CHECK(
        launch.params.size() == kernel.params_bytes && launch.buffers.size() == kernel.num_buffers,
        "{}: {} bytes of parameters and {} buffers, {} and {} wanted", kernel.name,
        launch.params.size(), launch.buffers.size(), kernel.params_bytes, kernel.num_buffers);
    // As large as was asked for: AddressSanitizer sees what lies beyond.
    std::vector<std::uint64_t> shared(ceil_div(launch.shared_bytes, sizeof(std::uint64_t)));
    Block block{kernel, launch, reinterpret_cast<char*>(shared.data()), {}, &fibers_};
    for (block.index.z = 0; block.index.z < launch.grid.z; ++block.index.z) {
      for (block.index.y = 0; block.index.y < launch.grid.y; ++block.index.y) {
        for (block.index.x = 0; block.index.x < launch.grid.x; ++block.index.x) {
          std::fill(shared.begin(), shared.end(), std::numeric_limits<std::uint64_t>::max());
          fibers_.run(launch.threads, &run_thread, &block);
        }
      }
    }
  }
  void fail(Stream& stream, Error error) override {
    static_cast<EmulatorStream&>(stream).fail(std::move(error));
  }

 private:
  struct Block {
    const kernels::HostKernel& kernel;
    const portable::Launch& launch;
    char* shared;
    kernels::Index3 index;
    kernels::FiberBlock* fibers;
  };

  static void run_thread(const void* context, std::uint32_t index) {
    const Block& block = *static_cast<const Block*>(context);
    const kernels::Thread thread{block.index,
                                 index,
                                 index % kernels::kWarpSize,
                                 index / kernels::kWarpSize,
                                 block.launch.threads / kernels::kWarpSize,
                                 block.fibers};
    block.kernel.run(thread, block.launch.params.data(), block.launch.buffers.data(), block.shared);
  }

  kernels::FiberBlock fibers_;
};

class EmulatorDevice final : public Device {
 public:
  EmulatorDevice() : ops_(portable::PortableOps::create(*this, launcher_).value()) {}

  std::string name() const override { return "emulator"; }
  std::string description() const override {
    return "kernels for GPUs on the processor, for tests";
  }
  Result<std::byte*> allocate(std::size_t size_bytes) override {
    void* memory = nullptr;
    if (size_bytes <= kMostBytes) {
      memory = std::aligned_alloc(kAlignment,
                                  round_up(std::max<std::size_t>(size_bytes, 1), kAlignment));
    }
    if (memory == nullptr) {
      return error(ErrorCode::kResourceExhausted, "no host memory left for {} bytes", size_bytes);
    }
    return static_cast<std::byte*>(memory);
  }
  void deallocate(std::byte* data) noexcept override { std::free(data); }
  std::size_t free_memory() override { return 0; }
  Result<std::unique_ptr<Stream>> make_stream() override {
    return std::unique_ptr<Stream>(std::make_unique<EmulatorStream>());
  }
  Ops& ops() override { return *ops_; }

 private:
  EmulatorLauncher launcher_;
  std::unique_ptr<portable::PortableOps> ops_;
};

}  // namespace

std::unique_ptr<Device> create_emulator() { return std::make_unique<EmulatorDevice>(); }

}  // namespace fovea::emulator
