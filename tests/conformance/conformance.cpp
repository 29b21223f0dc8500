#include "conformance/conformance.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/registry.h"
#include "conformance/shared_memory.h"
#include "tensor/half.h"

namespace fovea::conformance {
namespace {

constexpr std::size_t kGuardBytes = 256;
constexpr std::byte kPoison{0xff};

// SplitMix64: the same numbers on every platform.
std::uint64_t next(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

}  // namespace

std::string Target::name() const {
  return is_cpu() ? isa + "_threads_" + std::to_string(num_threads) : device;
}

Result<std::unique_ptr<Device>> Target::create(int threads) const {
  return create_device(device, {.num_threads = threads, .cpu_isa = isa});
}

std::vector<Target> targets() {
  std::vector<Target> found;
  for (const char* isa : {"generic", "avx2", "avx512", "avx512_bf16", "neon", "neon_bf16"}) {
    if (create_device("cpu", {.num_threads = 1, .cpu_isa = isa}).ok()) {
      found.push_back({"cpu", isa, 3});
    }
  }
  found.push_back({"cpu", found.back().isa, 1});
  const std::vector<Target> gpus = gpu_targets();
  found.insert(found.end(), gpus.begin(), gpus.end());
  return found;
}

std::vector<Target> gpu_targets() {
  std::vector<Target> found = {{"emulator"}};
  if (create_device("cuda", {}).ok()) found.push_back({"cuda"});
  return found;
}

void ConformanceTest::SetUp() {
  auto device = GetParam().create(GetParam().num_threads);
  ASSERT_TRUE(device.ok()) << device.error().message;
  device_ = std::move(device).value();
  auto stream = device_->make_stream();
  ASSERT_TRUE(stream.ok());
  stream_ = std::move(stream).value();
  use_shared_memory_of(GetParam().device, stream_.get());
}

void ConformanceTest::TearDown() {
  if (stream_ == nullptr) return;
  const Status status = stream_->synchronize();
  EXPECT_TRUE(status.ok()) << status.error().message;
  use_shared_memory_of("cpu", nullptr);
}

Guarded::Guarded(DType dtype, Shape shape) : Guarded(dtype, shape, nullptr) {}

Guarded::Guarded(DType dtype, Shape shape, const void* data) : view_{dtype, shape, nullptr} {
  const std::size_t size = view_.size_bytes();
  memory_ = allocate_shared_memory(size + 2 * kGuardBytes);
  std::fill_n(memory_.get(), size + 2 * kGuardBytes, kPoison);
  view_.data = memory_.get() + kGuardBytes;
  if (data != nullptr && size > 0) std::memcpy(view_.data, data, size);
}

TensorView Guarded::view() const {
  wait_for_device();
  return view_;
}

Guarded Guarded::of(const Floats& values, Shape shape) {
  return Guarded(DType::kF32, shape, values.data());
}
Guarded Guarded::of(const Ints& values, Shape shape) {
  return Guarded(DType::kI32, shape, values.data());
}
Guarded Guarded::of(const std::vector<std::uint8_t>& values, Shape shape) {
  return Guarded(DType::kU8, shape, values.data());
}
Guarded Guarded::bf16_of(const Floats& values, Shape shape) {
  std::vector<std::uint16_t> bits;
  for (const float value : values) bits.push_back(f32_to_bf16(value));
  return Guarded(DType::kBf16, shape, bits.data());
}

Floats Guarded::floats() const {
  const TensorView seen = view();
  if (seen.dtype == DType::kBf16) {
    Floats values;
    const auto* bits = seen.as<std::uint16_t>();
    for (std::int64_t i = 0; i < seen.num_elements(); ++i) values.push_back(bf16_to_f32(bits[i]));
    return values;
  }
  const float* begin = seen.as<float>();
  return Floats(begin, begin + seen.num_elements());
}
Ints Guarded::ints() const {
  const auto* begin = view().as<std::int32_t>();
  return Ints(begin, begin + view_.num_elements());
}

void Guarded::check_guards() const {
  const std::byte* end = view().data + view_.size_bytes();
  const auto intact = [](const std::byte* first) {
    return std::all_of(first, first + kGuardBytes, [](std::byte b) { return b == kPoison; });
  };
  EXPECT_TRUE(intact(memory_.get())) << "written before";
  EXPECT_TRUE(intact(end)) << "written past the end";
}

std::vector<std::uint32_t> row_bits(const Guarded& matrix, std::int64_t begin, std::int64_t count) {
  const TensorView rows = matrix.view().rows(begin, count);
  std::vector<std::uint32_t> bits(static_cast<std::size_t>(rows.num_elements()));
  if (!bits.empty()) std::memcpy(bits.data(), rows.data, rows.size_bytes());
  return bits;
}

Floats random_floats(std::int64_t count, std::uint64_t seed, float scale) {
  Floats values;
  std::uint64_t state = seed;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto unit = static_cast<float>(next(state) >> 40) * 0x1p-23f - 1.0f;
    values.push_back(unit * scale);
  }
  return values;
}

Floats small_numbers(std::int64_t rows, std::int64_t width, std::uint64_t seed) {
  Floats values = random_floats(rows * width, seed, 7);
  for (float& value : values) value = std::round(std::clamp(value, -7.0f, 7.0f));
  for (std::int64_t row = 0; row < rows; ++row) {
    values[static_cast<std::size_t>(row * width + row % width)] = 7;
  }
  return values;
}

Ints random_ints(std::int64_t count, std::int32_t below, std::uint64_t seed) {
  Ints values;
  std::uint64_t state = seed;
  for (std::int64_t i = 0; i < count; ++i) {
    values.push_back(static_cast<std::int32_t>(next(state) % static_cast<std::uint64_t>(below)));
  }
  return values;
}

Floats rounded(Floats values) {
  for (float& value : values) value = round_to_bf16(value);
  return values;
}

Doubles widened(const Floats& values) { return Doubles(values.begin(), values.end()); }

void expect_close(const Guarded& actual, const Doubles& expected, double tolerance,
                  const std::string& what) {
  const Floats values = actual.floats();
  ASSERT_EQ(values.size(), expected.size()) << what;
  double largest = 0;
  for (const double value : expected) largest = std::max(largest, std::fabs(value));
  double worst = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_FALSE(std::isnan(values[i])) << what << ": element " << i << " of " << values.size();
    const double difference = std::fabs(static_cast<double>(values[i]) - expected[i]);
    if (difference > worst) worst = difference;
    ASSERT_LE(difference, tolerance * largest)
        << what << ": element " << i << " is " << values[i] << ", not " << expected[i];
  }
  actual.check_guards();
}

}  // namespace fovea::conformance
