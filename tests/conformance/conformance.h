#pragma once

// What the conformance tests share: the devices under test, tensors that notice stray writes,
// random inputs, comparisons.

#include <cstdint>
#include <gtest/gtest.h>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/device.h"
#include "backend/ops.h"
#include "backend/stream.h"
#include "support/reference_ops.h"
#include "tensor/tensor_view.h"

namespace fovea::conformance {

using reference::Doubles;
using reference::Floats;
using reference::Ints;

/// The one table of tolerances: max |difference| / max |reference|.
struct Tolerance {
  static constexpr double kExact = 0;
  static constexpr double kElementwise = 1e-6;  ///< a handful of f32 roundings
  static constexpr double kSum = 2e-6;          ///< products and norms: f32 sums
  static constexpr double kAttention = 5e-6;    ///< two products and an exponential
  static constexpr double kChain = 1e-5;        ///< several of these in a row
  static constexpr double kBf16Dot = 1e-4;      ///< dot instructions that round in their own way
  static constexpr double kBf16Cache = 1e-2;    ///< K and V rounded to bf16
};

/// A device under test; for the processor an instruction set and a number of threads.
struct Target {
  std::string device;
  std::string isa = "";
  int num_threads = 1;

  bool is_cpu() const { return device == "cpu"; }
  /// "avx2_threads_3", "emulator"
  std::string name() const;
  /// The same device, for the processor with another number of threads.
  Result<std::unique_ptr<Device>> create(int threads) const;
};

/// Every instruction set that this machine runs, the best one also on a single thread; the
/// emulator; a GPU where there is one.
std::vector<Target> targets();
/// Those of them that run the kernels for GPUs.
std::vector<Target> gpu_targets();

class ConformanceTest : public testing::TestWithParam<Target> {
 protected:
  void SetUp() override;
  void TearDown() override;

  Ops& ops() { return device_->ops(); }
  Stream& stream() { return *stream_; }
  /// `count` repetitions of what is only a matter of statistics: fewer where each takes long.
  int repetitions(int count) const { return GetParam().device == "emulator" ? count / 20 : count; }
  /// Whether x is rounded to bf16 for bf16 weights.
  bool rounds_activations() const { return GetParam().isa.ends_with("_bf16"); }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
};

#define FOVEA_CONFORMANCE(suite)                                                        \
  INSTANTIATE_TEST_SUITE_P(, suite, testing::ValuesIn(::fovea::conformance::targets()), \
                           [](const auto& test) { return test.param.name(); })

/// A tensor between two guard zones, in memory that the host and the device under test both reach.
/// Outputs start as NaN (all bits set), so an element that is not written fails every comparison.
/// Whoever looks at it waits for the device first.
class Guarded {
 public:
  Guarded(DType dtype, Shape shape);
  static Guarded of(const Floats& values, Shape shape);
  static Guarded of(const Ints& values, Shape shape);
  static Guarded of(const std::vector<std::uint8_t>& values, Shape shape);
  static Guarded bf16_of(const Floats& values, Shape shape);

  /// Empty data gives an empty view ("not given").
  TensorView view() const;
  /// f32, or bf16 widened.
  Floats floats() const;
  Ints ints() const;
  /// Fails the test when a byte around the tensor has changed.
  void check_guards() const;

 private:
  Guarded(DType dtype, Shape shape, const void* data);

  std::shared_ptr<std::byte> memory_;
  TensorView view_;
};

/// Bit patterns of the floats of rows [begin, begin + count) of a matrix: for comparing to the bit.
std::vector<std::uint32_t> row_bits(const Guarded& matrix, std::int64_t begin, std::int64_t count);

/// Uniform in [-scale, scale); the same for the same seed.
Floats random_floats(std::int64_t count, std::uint64_t seed, float scale = 1);
/// Whole numbers up to 7, and one 7 in every row: what they come to in 8 bits, with a scale for
/// each row, needs no rounding.
Floats small_numbers(std::int64_t rows, std::int64_t width, std::uint64_t seed);
Ints random_ints(std::int64_t count, std::int32_t below, std::uint64_t seed);
/// Rounded to bf16.
Floats rounded(Floats values);
Doubles widened(const Floats& values);

/// max |actual - expected| <= tolerance * max |expected|, every element a number, guards intact.
void expect_close(const Guarded& actual, const Doubles& expected, double tolerance,
                  const std::string& what);

}  // namespace fovea::conformance
