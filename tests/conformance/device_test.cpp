#include <algorithm>
#include <limits>
#include <numeric>

#include "backend/buffer.h"
#include "backend/registry.h"
#include "conformance/conformance.h"
#include "support/instrumented.h"

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

TEST_P(DeviceTest, MemoryGivenBackWhileItIsReadIsNobodyElsesYet) {
  // A processor copies at once, so that no size keeps copies under way; watched memory is slow to
  // fill.
  constexpr std::int64_t kCount = testing_support::kInstrumented ? 20000 : 1000000;
  constexpr std::int32_t kRounds = 30;
  std::vector<Ints> back(kRounds, Ints(kCount));
  for (std::int32_t round = 0; round < kRounds; ++round) {
    auto tensor = Tensor::create(*device_, DType::kI32, {kCount});
    ASSERT_TRUE(tensor.ok());
    const Ints values(kCount, round);
    stream().upload(std::as_bytes(std::span(values)), tensor->view());
    stream().download(tensor->view(),
                      std::as_writable_bytes(std::span(back[static_cast<std::size_t>(round)])));
  }  // given back with the copies still under way
  ASSERT_TRUE(stream().synchronize().ok());
  for (std::int32_t round = 0; round < kRounds; ++round) {
    const Ints& values = back[static_cast<std::size_t>(round)];
    EXPECT_TRUE(std::ranges::all_of(values, [&](std::int32_t value) { return value == round; }))
        << "round " << round;
  }
}

TEST_P(DeviceTest, CopiesArriveWithTheMarkBehindThem) {
  // A dozen of them are more than a stream may keep ready; where a sanitizer watches there is no
  // such stream.
  constexpr std::int64_t kCount = testing_support::kInstrumented ? 20000 : 700000;
  constexpr std::int32_t kRounds = 150;  // and these are more marks
  constexpr std::int32_t kBehind = 20;
  auto tensor = Tensor::create(*device_, DType::kI32, {kCount});
  ASSERT_TRUE(tensor.ok());
  Ints values(static_cast<std::size_t>(kCount));
  std::vector<Ints> back(kRounds);
  std::vector<std::uint64_t> marks;
  for (std::int32_t round = 0; round < kRounds + kBehind; ++round) {
    if (round < kRounds) {
      // Small ones, and large ones where many are under way.
      const std::int64_t count = round % 50 < 30 ? kCount : 5;
      std::fill_n(values.begin(), count, round);
      const TensorView view = tensor->rows(count);
      stream().upload(std::as_bytes(std::span(values).first(static_cast<std::size_t>(count))),
                      view);
      Ints& to = back[static_cast<std::size_t>(round)];
      to.resize(static_cast<std::size_t>(count));
      stream().download(view, std::as_writable_bytes(std::span(to)));
      marks.push_back(stream().mark());
    }
    if (round < kBehind) continue;
    const auto old = static_cast<std::size_t>(round - kBehind);
    ASSERT_TRUE(stream().wait(marks[old]).ok());
    EXPECT_TRUE(std::ranges::all_of(
        back[old], [&](std::int32_t value) { return value == static_cast<std::int32_t>(old); }))
        << "round " << old;
    EXPECT_TRUE(stream().wait(marks[old]).ok()) << "a second time";
    if (old > 0) {
      EXPECT_GE(stream().ms_between(marks[old - 1], marks[old]).value_or(0), 0.0);
    }
  }
  EXPECT_TRUE(stream().synchronize().ok());
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
  for (const DType storage : {DType::kF32, DType::kBf16, DType::kF8E4M3, DType::kInt4}) {
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
