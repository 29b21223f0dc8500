#include <algorithm>
#include <cstring>

#include "conformance/conformance.h"

namespace fovea::conformance {
namespace {

/// The adapters of one linear (or of one kind of expert matrix): values, and the device's view.
struct Adapters {
  std::int64_t experts, max_rank, inputs, outputs;
  Ints ranks;
  Floats a, b;  // [slots, experts, max_rank, inputs] and [.., outputs]
  Guarded a_tensor, b_tensor;

  // Ranks beyond a slot's own hold NaN: nothing may read them.
  static Adapters make(std::int64_t experts, std::int64_t max_rank, std::int64_t inputs,
                       std::int64_t outputs, const Ints& ranks, DType dtype, std::uint64_t seed) {
    const auto slots = static_cast<std::int64_t>(ranks.size());
    const auto values = [&](std::int64_t width, std::uint64_t offset) {
      Floats all = rounded(random_floats(slots * experts * max_rank * width, seed + offset, 0.2f));
      for (std::int64_t row = 0; row < slots * experts * max_rank; ++row) {
        const auto slot = static_cast<std::size_t>(row / (experts * max_rank));
        if (row % max_rank < ranks[slot]) continue;
        std::fill_n(all.begin() + row * width, width, std::numeric_limits<float>::quiet_NaN());
      }
      return all;
    };
    const auto tensor = [&](const Floats& all, std::int64_t width) {
      Shape shape{slots};
      if (experts > 1) shape.push_back(experts);
      shape.push_back(max_rank);
      shape.push_back(width);
      return dtype == DType::kF32 ? Guarded::of(all, shape) : Guarded::bf16_of(all, shape);
    };
    const Floats a = values(inputs, 0), b = values(outputs, 1);
    return {experts, max_rank, inputs, outputs, ranks, a, b, tensor(a, inputs), tensor(b, outputs)};
  }

  LoraWeights weights() const { return {a_tensor.view(), b_tensor.view(), ranks}; }

  std::span<const float> part(const Floats& all, std::int64_t slot, std::int64_t expert,
                              std::int64_t width) const {
    return std::span(all).subspan(
        static_cast<std::size_t>((slot * experts + expert) * max_rank * width),
        static_cast<std::size_t>(ranks[static_cast<std::size_t>(slot)] * width));
  }
  /// y += update of `slot` for the rows of x.
  void apply(std::int64_t slot, std::int64_t expert, std::span<const float> x,
             std::span<double> y) const {
    const std::int32_t rank = ranks[static_cast<std::size_t>(slot)];
    if (rank == 0) return;
    reference::lora(x, part(a, slot, expert, inputs), part(b, slot, expert, outputs), rank, y);
  }
};

class Lora : public ConformanceTest {};

// Slot of each row, from the batch.
Ints slots_of_rows(const Ints& query_start, const Ints& slots) {
  Ints rows(static_cast<std::size_t>(query_start.back()), -1);
  for (std::size_t s = 0; s < slots.size(); ++s) {
    std::fill(rows.begin() + query_start[s], rows.begin() + query_start[s + 1], slots[s]);
  }
  return rows;
}

TEST_P(Lora, RowsGetTheUpdateOfTheirAdapter) {
  struct Case {
    std::int64_t inputs, outputs, max_rank;
    Ints ranks;        // of each slot
    Ints query_start;  // of each sequence
    Ints slots;
  };
  const std::vector<Case> cases = {
      {1, 1, 1, {1}, {0, 1}, {0}},
      {7, 5, 3, {1, 3, 2}, {0, 1, 2, 3, 4, 5}, {2, -1, 0, 1, 2}},
      {33, 65, 16, {16, 0, 9}, {0, 37, 38, 80}, {2, 1, 0}},
      {128, 130, 8, {8, 4}, {0, 3, 3, 9, 70}, {1, 0, -1, 1}},
      {2048, 515, 32, {32, 17}, {0, 1, 2, 3}, {0, 1, 0}},
      {100, 300, 512, {512, 1, 511}, {0, 5, 6, 12}, {0, 1, 2}},
  };
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const Case& c : cases) {
      const Adapters adapters =
          Adapters::make(1, c.max_rank, c.inputs, c.outputs, c.ranks, dtype, 11);
      const std::int64_t rows = c.query_start.back();
      const Floats x = random_floats(rows * c.inputs, 3);
      const Floats before = random_floats(rows * c.outputs, 4);
      const Guarded y = Guarded::of(before, {rows, c.outputs});
      ops().lora(stream(), {.x = Guarded::of(x, {rows, c.inputs}).view(),
                            .weights = adapters.weights(),
                            .batch = {c.query_start, c.slots},
                            .y = y.view()});
      Doubles expected = widened(before);
      const Ints slots = slots_of_rows(c.query_start, c.slots);
      const Floats after = y.floats();
      for (std::int64_t row = 0; row < rows; ++row) {
        const auto begin = static_cast<std::size_t>(row * c.outputs);
        const auto width = static_cast<std::size_t>(c.outputs);
        const std::int32_t slot = slots[static_cast<std::size_t>(row)];
        if (slot >= 0) {
          adapters.apply(slot, 0,
                         std::span(x).subspan(static_cast<std::size_t>(row * c.inputs),
                                              static_cast<std::size_t>(c.inputs)),
                         std::span(expected).subspan(begin, width));
        }
        if (slot < 0 || c.ranks[static_cast<std::size_t>(slot)] == 0) {
          EXPECT_EQ(std::memcmp(&after[begin], &before[begin], width * sizeof(float)), 0)
              << "row " << row << " has no adapter";
        }
      }
      expect_close(y, expected, Tolerance::kChain,
                   std::to_string(c.inputs) + " to " + std::to_string(c.outputs) + " in " +
                       std::string(dtype_name(dtype)));
    }
  }
}

TEST_P(Lora, ARowsBitsDoNotDependOnItsNeighbours) {
  constexpr std::int64_t kInputs = 203, kOutputs = 1111, kRows = 90;
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    const Adapters adapters = Adapters::make(1, 24, kInputs, kOutputs, {24, 5, 11}, dtype, 5);
    const Floats x = random_floats(kRows * kInputs, 6);
    const Floats before = random_floats(kRows * kOutputs, 7);
    // 12 single rows, then prompts of 50 and 28 rows.
    Ints query_start, slots;
    for (std::int32_t s = 0; s <= 12; ++s) query_start.push_back(s);
    for (std::int32_t s = 0; s < 12; ++s) slots.push_back(s % 4 - 1);
    query_start.insert(query_start.end(), {62, 90});
    slots.insert(slots.end(), {1, 0});
    const Guarded x_all = Guarded::of(x, {kRows, kInputs});
    const Guarded together = Guarded::of(before, {kRows, kOutputs});
    ops().lora(stream(), {.x = x_all.view(),
                          .weights = adapters.weights(),
                          .batch = {query_start, slots},
                          .y = together.view()});
    const Guarded alone = Guarded::of(before, {kRows, kOutputs});
    const Ints row_slots = slots_of_rows(query_start, slots);
    for (std::int64_t row = 0; row < kRows; ++row) {
      ops().lora(stream(), {.x = x_all.view().rows(row, 1),
                            .weights = adapters.weights(),
                            .batch = {Ints{0, 1}, {&row_slots[static_cast<std::size_t>(row)], 1}},
                            .y = alone.view().rows(row, 1)});
    }
    EXPECT_EQ(std::memcmp(together.view().data, alone.view().data, alone.view().size_bytes()), 0)
        << dtype_name(dtype);
  }
}

TEST_P(Lora, ExpertsGetTheUpdatesOfEachRowsAdapter) {
  constexpr std::int64_t kExperts = 5, kTopK = 3, kDim = 37, kInner = 19;
  const Ints query_start{0, 1, 9, 40, 41}, slots{1, 0, -1, 1};
  const std::int64_t rows = query_start.back();
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    const Adapters up = Adapters::make(kExperts, 4, kDim, 2 * kInner, {4, 3}, dtype, 21);
    const Adapters down = Adapters::make(kExperts, 4, kInner, kDim, {2, 0}, dtype, 22);
    std::vector<Floats> up_values, down_values;
    std::vector<std::unique_ptr<const Matrix>> up_packed, down_packed;
    const auto add = [&](std::int64_t m, std::int64_t n, std::uint64_t seed, auto& values,
                         auto& packed) {
      values.push_back(random_floats(m * n, seed, 0.3f));
      auto matrix = ops().pack({Guarded::of(values.back(), {m, n}).view(), {}}, DType::kF32);
      ASSERT_TRUE(matrix.ok());
      packed.push_back(std::move(matrix).value());
    };
    for (std::uint64_t e = 0; e < kExperts; ++e) {
      add(2 * kInner, kDim, 100 + e, up_values, up_packed);
      add(kDim, kInner, 200 + e, down_values, down_packed);
    }
    const Floats x = random_floats(rows * kDim, 1), before = random_floats(rows * kDim, 3);
    const Floats weights = random_floats(rows * kTopK, 2);
    Ints experts;
    for (std::int64_t i = 0; i < rows * kTopK; ++i) {
      experts.push_back(static_cast<std::int32_t>((i / kTopK + i % kTopK) % kExperts));
    }
    const MoeLora lora{up.weights(), down.weights(), {query_start, slots}};
    const Guarded y = Guarded::of(before, {rows, kDim});
    ops().moe_mlp(
        stream(), Guarded::of(x, {rows, kDim}).view(), Guarded::of(experts, {rows, kTopK}).view(),
        Guarded::of(weights, {rows, kTopK}).view(), up_packed, down_packed, &lora, y.view());

    // The same as experts with the update merged into their weights, slot by slot.
    const auto merge = [](const Adapters& adapters, std::int64_t slot, std::vector<Floats> values) {
      for (std::size_t e = 0; e < values.size(); ++e) {
        const auto inputs = static_cast<std::size_t>(adapters.inputs);
        for (std::size_t i = 0; i < inputs; ++i) {
          Floats unit(inputs, 0.0f);
          unit[i] = 1;
          Doubles column(static_cast<std::size_t>(adapters.outputs), 0.0);
          adapters.apply(slot, static_cast<std::int64_t>(e), unit, column);
          for (std::size_t o = 0; o < column.size(); ++o) {
            values[e][o * inputs + i] += static_cast<float>(column[o]);
          }
        }
      }
      return values;
    };
    Doubles expected;
    for (std::size_t s = 0; s < slots.size(); ++s) {
      const auto cut = [&](const auto& all, std::int64_t width) {
        return std::decay_t<decltype(all)>(all.begin() + query_start[s] * width,
                                           all.begin() + query_start[s + 1] * width);
      };
      Doubles part = widened(cut(before, kDim));
      const bool adapted = slots[s] >= 0;
      reference::moe_mlp(cut(x, kDim), cut(experts, kTopK), cut(weights, kTopK),
                         adapted ? merge(up, slots[s], up_values) : up_values,
                         adapted ? merge(down, slots[s], down_values) : down_values, kTopK, kDim,
                         kInner, part);
      expected.insert(expected.end(), part.begin(), part.end());
    }
    expect_close(y, expected, Tolerance::kChain, std::string(dtype_name(dtype)));
  }
}

FOVEA_CONFORMANCE(Lora);

}  // namespace
}  // namespace fovea::conformance
