#include <limits>
#include <numeric>

#include "backend/buffer.h"
#include "backend/registry.h"
#include "conformance/conformance.h"

namespace fovea::conformance {
namespace {

using DeviceTest = ConformanceTest;

TEST_P(DeviceTest, MemoryIsAlignedAndReturnsWhatWasUploaded) {
  for (const std::int64_t count : {0, 1, 1000, 3000000}) {
    auto tensor = Tensor::create(*device_, DType::kI32, {count});
    ASSERT_TRUE(tensor.ok());
    const TensorView view = tensor->view();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(view.data) % 64, 0u);
    Ints values(static_cast<std::size_t>(count));
    std::iota(values.begin(), values.end(), 5);
    stream().upload(std::as_bytes(std::span(values)), view);
    Ints back(values.size());
    stream().download(view, std::as_writable_bytes(std::span(back)));
    EXPECT_TRUE(stream().synchronize().ok());
    EXPECT_EQ(back, values);
  }
}

TEST_P(DeviceTest, TooMuchMemoryIsAnError) {
  for (const std::size_t size :
       {std::numeric_limits<std::size_t>::max(), std::size_t{1} << 46, std::size_t{1} << 62}) {
    auto memory = device_->allocate(size);
    ASSERT_FALSE(memory.ok());
    EXPECT_EQ(memory.error().code, ErrorCode::kResourceExhausted);
  }
}

TEST_P(DeviceTest, SaysWhatItIs) {
  EXPECT_TRUE(device_->name().starts_with(GetParam().device));
  EXPECT_NE(device_->description().find(GetParam().isa), std::string::npos);
  EXPECT_FALSE(device_->description().empty());
  for (const DType storage : {DType::kF32, DType::kBf16, DType::kF8E4M3}) {
    const bool is_f32 = GetParam().is_cpu() || storage == DType::kF32;
    EXPECT_EQ(ops().activation_dtype(storage), is_f32 ? DType::kF32 : DType::kBf16);
  }
}

FOVEA_CONFORMANCE(DeviceTest);

TEST(Registry, ListsTheProcessor) {
  const std::vector<BackendInfo> backends = list_backends();
  ASSERT_FALSE(backends.empty());
  EXPECT_EQ(backends[0].name, "cpu");
  EXPECT_TRUE(backends[0].available);
  EXPECT_NE(backends[0].description.find("generic"), std::string::npos);
}

TEST(Registry, AutoGivesADevice) {
  auto device = create_device("auto", {});
  ASSERT_TRUE(device.ok());
  EXPECT_EQ((*device)->name(), "cpu");
}

TEST(Registry, RefusesWhatItDoesNotKnow) {
  const auto code = [](std::string_view name, const DeviceOptions& options) {
    auto device = create_device(name, options);
    return device.ok() ? ErrorCode::kInternal : device.error().code;
  };
  EXPECT_EQ(code("tpu", {}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code("cpu", {.num_threads = -1}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code("cpu", {.num_threads = 0, .cpu_isa = "sse9"}), ErrorCode::kInvalidArgument);
#if defined(__x86_64__)
  EXPECT_EQ(code("cpu", {.num_threads = 1, .cpu_isa = "neon"}), ErrorCode::kUnsupported);
#else
  EXPECT_EQ(code("cpu", {.num_threads = 1, .cpu_isa = "avx2"}), ErrorCode::kUnsupported);
#endif
}

}  // namespace
}  // namespace fovea::conformance
