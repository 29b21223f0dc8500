#include <cmath>
#include <limits>

#include "backend/registry.h"
#include "conformance/conformance.h"
#include "tensor/half.h"
#include "tensor/int4.h"

namespace fovea::conformance {
namespace {

struct Size {
  std::int64_t m, n, k;
};

// Rows on both sides of every kernel's limits; columns and depths that fill no panel or slice.
const std::vector<Size> kSizes = {{1, 7, 1},      {1, 100, 588},  {2, 33, 130},   {3, 16, 257},
                                  {4, 65, 514},   {7, 48, 1024},  {16, 40, 513},  {17, 31, 33},
                                  {25, 130, 588}, {64, 100, 255}, {150, 17, 300}, {301, 803, 64}};

std::string name_of(const Size& size, std::string_view storage) {
  return std::to_string(size.m) + " x " + std::to_string(size.n) + " x " + std::to_string(size.k) +
         " " + std::string(storage);
}

// Codes without NaN, and what they mean.
struct Codes {
  std::vector<std::uint8_t> bits;
  Floats values;
};
Codes random_codes(std::int64_t count, std::uint64_t seed) {
  Codes codes;
  for (const std::int32_t code : random_ints(count, 256, seed)) {
    const auto bits = static_cast<std::uint8_t>((code & 0x7f) == 0x7f ? code & 0x80 : code);
    codes.bits.push_back(bits);
    codes.values.push_back(f8e4m3_to_f32(bits));
  }
  return codes;
}

// Weights as 4 bits hold them: what quantise_int4() makes of random ones, rows of tiny and of large
// numbers among them.
Floats int4_weights(std::int64_t n, std::int64_t k, std::uint64_t seed) {
  Floats weights = random_floats(n * k, seed);
  for (std::int64_t row = 0; row < n; ++row) {
    const std::span<float> values(weights.data() + row * k, static_cast<std::size_t>(k));
    for (float& value : values) value *= row % 5 == 4 ? 0.01f : 1.0f;
    const float step = int4_row_step(values);
    for (std::int64_t at = 0; at < k; at += kInt4Group) {
      const Int4Group group = quantise_int4(values.data() + at, step);
      for (std::int64_t i = 0; i < kInt4Group; ++i) {
        values[static_cast<std::size_t>(at + i)] = group.value(i) * step;
      }
    }
  }
  return weights;
}

class Linear : public ConformanceTest {
 protected:
  std::unique_ptr<const Matrix> pack(const MatrixSource& source, DType storage) {
    auto matrix = ops().pack(source, storage);
    EXPECT_TRUE(matrix.ok());
    return matrix.ok() ? std::move(matrix).value() : nullptr;
  }

  // The tolerance, and x as the kernel sees it.
  double adjust(DType storage, Floats& x) const {
    if (!rounds_activations() || storage != DType::kBf16) return Tolerance::kSum;
    x = rounded(x);
    return Tolerance::kBf16Dot;
  }
};

TEST_P(Linear, MatchesReferenceForEveryStorage) {
  for (const Size& size : kSizes) {
    const Floats x = random_floats(size.m * size.k, 1);
    const Floats w = random_floats(size.n * size.k, 2);
    const Floats bias = random_floats(size.n, 3);
    const Codes codes = random_codes(size.n * size.k, 4);
    const Floats scale = random_floats(size.n, 5, 0.01f);
    for (const DType storage : {DType::kF32, DType::kBf16, DType::kF8E4M3}) {
      const bool f8 = storage == DType::kF8E4M3;
      Guarded source =
          f8 ? Guarded::of(codes.bits, {size.n, size.k}) : Guarded::of(w, {size.n, size.k});
      TensorView weight = source.view();
      if (f8) weight.dtype = DType::kF8E4M3;
      const Guarded scale_tensor = Guarded::of(scale, {size.n});
      const auto matrix = pack({weight, f8 ? scale_tensor.view() : TensorView{}}, storage);
      ASSERT_NE(matrix, nullptr);
      EXPECT_EQ(matrix->rows(), size.n);
      EXPECT_EQ(matrix->cols(), size.k);
      const Guarded x_tensor = Guarded::of(x, {size.m, size.k});
      const Guarded bias_tensor = Guarded::of(bias, {size.n});
      const Guarded y(DType::kF32, {size.m, size.n});
      ops().linear(stream(), {.x = x_tensor.view(),
                              .weight = matrix.get(),
                              .bias = bias_tensor.view(),
                              .add = {},
                              .y = y.view()});
      Floats seen = x;
      const double tolerance = adjust(storage, seen);
      const Floats& used = f8 ? codes.values : storage == DType::kBf16 ? rounded(w) : w;
      expect_close(
          y, reference::linear(seen, used, f8 ? scale : Floats{}, bias, size.m, size.n, size.k),
          tolerance, name_of(size, dtype_name(storage)));
    }
  }
}

TEST_P(Linear, MultipliesWeightsIn4Bits) {
  for (const Size& size :
       {Size{1, 7, 16}, Size{1, 100, 592}, Size{2, 33, 144}, Size{3, 16, 272}, Size{5, 65, 512},
        Size{9, 40, 528}, Size{17, 31, 48}, Size{40, 130, 320}, Size{70, 67, 64}}) {
    const Floats x = random_floats(size.m * size.k, 71);
    const Floats w = random_floats(size.n * size.k, 72), bias = random_floats(size.n, 73);
    // Quantised as pack() does: what it must multiply by.
    const Floats used = int4_weights(size.n, size.k, 72);
    Floats source = w;
    for (std::int64_t row = 4; row < size.n; row += 5) {
      for (std::int64_t i = 0; i < size.k; ++i) {
        source[static_cast<std::size_t>(row * size.k + i)] *= 0.01f;
      }
    }
    const Guarded weight = Guarded::of(source, {size.n, size.k});
    const auto matrix = pack({weight.view(), {}}, DType::kInt4);
    ASSERT_NE(matrix, nullptr);
    EXPECT_EQ(matrix->rows(), size.n);
    EXPECT_EQ(matrix->cols(), size.k);
    if (size.k >= 512 && size.n >= 100) {
      EXPECT_LT(matrix->size_bytes(), static_cast<std::size_t>(size.n * size.k) * 3 / 4);
    }
    const Guarded x_tensor = Guarded::of(x, {size.m, size.k}), b = Guarded::of(bias, {size.n});
    const Guarded y(DType::kF32, {size.m, size.n});
    ops().linear(stream(),
                 {.x = x_tensor.view(), .weight = matrix.get(), .bias = b.view(), .y = y.view()});
    expect_close(y, reference::linear(x, used, {}, bias, size.m, size.n, size.k), Tolerance::kSum,
                 name_of(size, "int4"));
  }
}

TEST_P(Linear, TakesWeightsIn4BitsFromEverySource) {
  const Size size{6, 19, 80};
  const Codes codes = random_codes(size.n * size.k, 81);
  const Floats scale = random_floats(size.n, 82), x = random_floats(size.m * size.k, 83);
  const Guarded f32 = Guarded::of(codes.values, {size.n, size.k});
  const Guarded bf16 = Guarded::bf16_of(codes.values, {size.n, size.k});
  const Guarded bits = Guarded::of(codes.bits, {size.n, size.k});
  TensorView f8 = bits.view();
  f8.dtype = DType::kF8E4M3;
  const Guarded scales = Guarded::of(scale, {size.n}), x_tensor = Guarded::of(x, {size.m, size.k});
  std::vector<std::uint32_t> first;
  for (const TensorView& source : {f32.view(), bf16.view(), f8}) {
    const auto matrix = pack({source, scales.view()}, DType::kInt4);
    ASSERT_NE(matrix, nullptr);
    const Guarded y(DType::kF32, {size.m, size.n});
    ops().linear(stream(), {.x = x_tensor.view(), .weight = matrix.get(), .y = y.view()});
    // Codes of e4m3 spread widely: of most, the error is that of the largest of their group.
    expect_close(y, reference::linear(x, codes.values, scale, {}, size.m, size.n, size.k), 0.15,
                 "int4");
    if (first.empty()) first = row_bits(y, 0, size.m);
    EXPECT_EQ(row_bits(y, 0, size.m), first);
  }
}

TEST_P(Linear, RowsIn4BitsThatAreNotFiniteGiveNaN) {
  const Size size{3, 10, 32};
  Floats w = random_floats(size.n * size.k, 91);
  w[static_cast<std::size_t>(2 * size.k + 5)] = std::numeric_limits<float>::infinity();
  w[static_cast<std::size_t>(9 * size.k)] = std::numeric_limits<float>::quiet_NaN();
  for (std::int64_t i = 0; i < size.k; ++i) w[static_cast<std::size_t>(4 * size.k + i)] = 0;
  const Guarded weight = Guarded::of(w, {size.n, size.k});
  const auto matrix = pack({weight.view(), {}}, DType::kInt4);
  const Guarded x = Guarded::of(random_floats(size.m * size.k, 92), {size.m, size.k});
  const Guarded y(DType::kF32, {size.m, size.n});
  ops().linear(stream(), {.x = x.view(), .weight = matrix.get(), .y = y.view()});
  const Floats values = y.floats();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t row = i % static_cast<std::size_t>(size.n);
    EXPECT_EQ(std::isnan(values[i]), row == 2 || row == 9) << "row " << row;
    if (row == 4) {
      EXPECT_EQ(values[i], 0);
    }
  }
}

TEST_P(Linear, RowsThatDoNotFit4BitsAreAnError) {
  const Guarded weight = Guarded::of(random_floats(4 * 24, 95), {4, 24});
  const auto matrix = ops().pack({weight.view(), {}}, DType::kInt4);
  ASSERT_FALSE(matrix.ok());
  EXPECT_EQ(matrix.error().code, ErrorCode::kUnsupported);
}

TEST_P(Linear, FusesActivationAndAdd) {
  for (const Size size : {Size{6, 50, 70}, Size{60, 90, 70}}) {
    const Floats x = random_floats(size.m * size.k, 11);
    const Floats w = random_floats(size.n * size.k, 12);
    const Guarded x_tensor = Guarded::of(x, {size.m, size.k});
    const Guarded w_tensor = Guarded::of(w, {size.n, size.k});
    const auto matrix = pack({w_tensor.view(), {}}, DType::kF32);
    const Doubles plain = reference::linear(x, w, {}, {}, size.m, size.n, size.k);
    for (const std::int64_t period : {std::int64_t{1}, std::int64_t{3}, size.m}) {
      const Floats add = random_floats(period * size.n, 13);
      const Guarded add_tensor = Guarded::of(add, {period, size.n});
      for (const Activation activation :
           {Activation::kNone, Activation::kGeluTanh, Activation::kGeluErf}) {
        Doubles expected = plain;
        for (std::size_t i = 0; i < expected.size(); ++i) {
          if (activation == Activation::kGeluTanh) expected[i] = reference::gelu_tanh(plain[i]);
          if (activation == Activation::kGeluErf) expected[i] = reference::gelu_erf(plain[i]);
          expected[i] += static_cast<double>(add[i % add.size()]);
        }
        const Guarded y(DType::kF32, {size.m, size.n});
        ops().linear(stream(), {.x = x_tensor.view(),
                                .weight = matrix.get(),
                                .bias = {},
                                .activation = activation,
                                .add = add_tensor.view(),
                                .y = y.view()});
        expect_close(y, expected, Tolerance::kSum, name_of(size, "fused"));
      }
    }
  }
}

TEST_P(Linear, AlsoActivatesWhatItStores) {
  const Size size{7, 40, 64};
  const Guarded x = Guarded::of(random_floats(size.m * size.k, 14), {size.m, size.k});
  const Guarded w = Guarded::of(random_floats(size.n * size.k, 15), {size.n, size.k});
  const auto matrix = pack({w.view(), {}}, DType::kF32);
  const Guarded y(DType::kF32, {size.m, size.n}), activated(DType::kF32, {size.m, size.n});
  const Guarded expected(DType::kF32, {size.m, size.n});
  ops().linear(stream(), {.x = x.view(),
                          .weight = matrix.get(),
                          .y = y.view(),
                          .activated = activated.view(),
                          .activated_by = Activation::kGeluErf});
  ops().activate(stream(), y.view(), Activation::kGeluErf, expected.view());
  ASSERT_TRUE(stream().synchronize().ok());
  EXPECT_EQ(activated.floats(), expected.floats());
  const Floats stored = y.floats(), found = activated.floats();
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], reference::gelu_erf(static_cast<double>(stored[i])), 1e-5);
  }
}

TEST_P(Linear, AddsToItsOwnOutput) {
  for (const Size size : {Size{5, 40, 600}, Size{40, 70, 600}}) {
    const Floats x = random_floats(size.m * size.k, 21);
    const Floats w = random_floats(size.n * size.k, 22);
    const Floats residual = random_floats(size.m * size.n, 23);
    const Guarded x_tensor = Guarded::of(x, {size.m, size.k});
    const Guarded w_tensor = Guarded::of(w, {size.n, size.k});
    const auto matrix = pack({w_tensor.view(), {}}, DType::kF32);
    const Guarded y = Guarded::of(residual, {size.m, size.n});
    ops().linear(
        stream(),
        {.x = x_tensor.view(), .weight = matrix.get(), .bias = {}, .add = y.view(), .y = y.view()});
    Doubles expected = reference::linear(x, w, {}, {}, size.m, size.n, size.k);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] += static_cast<double>(residual[i]);
    }
    expect_close(y, expected, Tolerance::kSum, name_of(size, "residual"));
  }
}

TEST_P(Linear, PacksEverySourceIntoEveryStorage) {
  const Size size{20, 37, 75};
  const Floats x = rounded(random_floats(size.m * size.k, 31));
  const Codes codes = random_codes(size.n * size.k, 32);
  const Floats scale = random_floats(size.n, 33);
  std::vector<std::uint16_t> halves;  // the same values as f16: e4m3 fits
  for (const float value : codes.values) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const int exponent = static_cast<int>((bits >> 23) & 0xff) - 127 + 15;
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    const std::uint32_t magnitude =
        value == 0 ? 0 : (static_cast<std::uint32_t>(exponent) << 10) | ((bits >> 13) & 0x3ffu);
    halves.push_back(static_cast<std::uint16_t>(sign | magnitude));
  }
  const Guarded f32 = Guarded::of(codes.values, {size.n, size.k});
  const Guarded bf16 = Guarded::bf16_of(codes.values, {size.n, size.k});
  TensorView f16{DType::kF16, {size.n, size.k}, reinterpret_cast<std::byte*>(halves.data())};
  const Guarded f8_bits = Guarded::of(codes.bits, {size.n, size.k});
  TensorView f8 = f8_bits.view();
  f8.dtype = DType::kF8E4M3;
  const Guarded scale_tensor = Guarded::of(scale, {size.n});
  const Guarded x_tensor = Guarded::of(x, {size.m, size.k});
  const Doubles expected = reference::linear(x, codes.values, scale, {}, size.m, size.n, size.k);
  for (const TensorView& source : {f32.view(), bf16.view(), f16, f8}) {
    for (const DType storage : {DType::kF32, DType::kBf16, DType::kF8E4M3}) {
      const auto matrix = pack({source, scale_tensor.view()}, storage);
      ASSERT_NE(matrix, nullptr);
      const Guarded y(DType::kF32, {size.m, size.n});
      ops().linear(
          stream(),
          {.x = x_tensor.view(), .weight = matrix.get(), .bias = {}, .add = {}, .y = y.view()});
      // Every value is an e4m3 number; only requantising to another step loses anything.
      const bool requantised = storage == DType::kF8E4M3 && source.dtype != DType::kF8E4M3;
      const double tolerance = requantised            ? 0.05
                               : rounds_activations() ? Tolerance::kBf16Dot
                                                      : Tolerance::kSum;
      expect_close(
          y, expected, tolerance,
          std::string(dtype_name(source.dtype)) + " to " + std::string(dtype_name(storage)));
    }
  }
}

TEST_P(Linear, MultipliesEveryCodeExactly) {
  std::vector<std::uint8_t> all(256);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint8_t>(i);
  const Guarded source = Guarded::of(all, {256, 1});
  TensorView weight = source.view();
  weight.dtype = DType::kF8E4M3;
  const auto matrix = pack({weight, {}}, DType::kF8E4M3);
  for (const std::int64_t m : {1, 18}) {
    const Guarded x = Guarded::of(Floats(static_cast<std::size_t>(m), 1.0f), {m, 1});
    const Guarded y(DType::kF32, {m, 256});
    ops().linear(stream(),
                 {.x = x.view(), .weight = matrix.get(), .bias = {}, .add = {}, .y = y.view()});
    const Floats values = y.floats();
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float expected = f8e4m3_to_f32(static_cast<std::uint8_t>(i % 256));
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(values[i])) << "code " << i % 256;
      } else {
        EXPECT_EQ(values[i], expected) << "code " << i % 256;
      }
    }
  }
}

TEST_P(Linear, GivesTheSameBitsEachTime) {
  const Size size{40, 200, 700};
  const Guarded x = Guarded::of(random_floats(size.m * size.k, 41), {size.m, size.k});
  const Guarded w = Guarded::of(random_floats(size.n * size.k, 42), {size.n, size.k});
  const auto matrix = pack({w.view(), {}}, DType::kBf16);
  Floats first;
  for (int round = 0; round < 5; ++round) {
    const Guarded y(DType::kF32, {size.m, size.n});
    ops().linear(stream(),
                 {.x = x.view(), .weight = matrix.get(), .bias = {}, .add = {}, .y = y.view()});
    if (round == 0) first = y.floats();
    EXPECT_EQ(y.floats(), first);
  }
}

TEST_P(Linear, RowsAreBitEqualAtAnyBatchAndNumberOfThreads) {
  const std::int64_t most_rows = 301;
  auto other_device = GetParam().create(5);
  ASSERT_TRUE(other_device.ok());
  for (const Size size : {Size{most_rows, 101, 592}, Size{most_rows, 260, 515}}) {
    const Floats x = random_floats(size.m * size.k, 61, 3);
    const Guarded x_tensor = Guarded::of(x, {size.m, size.k});
    const Guarded w = Guarded::of(random_floats(size.n * size.k, 62), {size.n, size.k});
    const Guarded scale = Guarded::of(random_floats(size.n, 63), {size.n});
    const Guarded bias = Guarded::of(random_floats(size.n, 64), {size.n});
    const Guarded add = Guarded::of(random_floats(size.n, 65), {1, size.n});
    for (const DType storage : {DType::kF32, DType::kBf16, DType::kF8E4M3, DType::kInt4}) {
      if (storage == DType::kInt4 && !fits_int4(size.k)) continue;
      const auto run = [&](Device& device, std::int64_t begin, std::int64_t count) {
        const auto matrix = device.ops().pack({w.view(), scale.view()}, storage).value();
        const Guarded y(DType::kF32, {count, size.n});
        device.ops().linear(stream(), {.x = x_tensor.view().rows(begin, count),
                                       .weight = matrix.get(),
                                       .bias = bias.view(),
                                       .activation = Activation::kGeluTanh,
                                       .add = add.view(),
                                       .y = y.view()});
        return y;
      };
      const Guarded all = run(*device_, 0, size.m);
      EXPECT_EQ(row_bits(run(**other_device, 0, size.m), 0, size.m), row_bits(all, 0, size.m));
      for (const std::int64_t count : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 40, 64}) {
        for (const std::int64_t begin : {std::int64_t{0}, std::int64_t{37}, size.m - count}) {
          EXPECT_EQ(row_bits(run(*device_, begin, count), 0, count), row_bits(all, begin, count))
              << "rows " << begin << " + " << count << " of " << name_of(size, dtype_name(storage));
        }
      }
    }
  }
}

TEST_P(Linear, RefusesTypesItCannotStore) {
  const Guarded w = Guarded::of(random_floats(64, 51), {8, 8});
  for (const DType storage : {DType::kF16, DType::kI32, DType::kU8}) {
    auto matrix = ops().pack({w.view(), {}}, storage);
    ASSERT_FALSE(matrix.ok());
    EXPECT_EQ(matrix.error().code, ErrorCode::kUnsupported);
  }
}

FOVEA_CONFORMANCE(Linear);

}  // namespace
}  // namespace fovea::conformance
