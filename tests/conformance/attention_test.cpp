#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/registry.h"
#include "conformance/conformance.h"
#include "conformance/kv_pool.h"
#include "support/instrumented.h"

namespace fovea::conformance {
namespace {

class Attention : public ConformanceTest {
 protected:
  // Rows [begin, begin + count) of head `head` of a [rows, width] matrix.
  static Doubles head_of(const Floats& matrix, std::int64_t width, std::int64_t begin,
                         std::int64_t count, std::int64_t offset, std::int64_t head_dim) {
    Doubles out;
    for (std::int64_t r = begin; r < begin + count; ++r) {
      for (std::int64_t d = 0; d < head_dim; ++d) {
        out.push_back(
            static_cast<double>(matrix[static_cast<std::size_t>(r * width + offset + d)]));
      }
    }
    return out;
  }

  static void put_head(const Doubles& head, std::int64_t width, std::int64_t begin,
                       std::int64_t offset, std::int64_t head_dim, Doubles& matrix) {
    for (std::size_t i = 0; i < head.size(); ++i) {
      const auto r = begin + static_cast<std::int64_t>(i) / head_dim;
      const auto d = static_cast<std::int64_t>(i) % head_dim;
      matrix[static_cast<std::size_t>(r * width + offset + d)] = head[i];
    }
  }

  void check_self(std::int64_t crops, std::int64_t tokens, int heads, std::int64_t head_dim,
                  float scale) {
    const std::int64_t dim = heads * head_dim;
    const Floats qkv = random_floats(crops * tokens * 3 * dim, 7, scale);
    Doubles expected(static_cast<std::size_t>(crops * tokens * dim));
    const std::vector<std::int64_t> visible(static_cast<std::size_t>(tokens), tokens);
    for (std::int64_t crop = 0; crop < crops; ++crop) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const auto part = [&](std::int64_t which) {
          return head_of(qkv, 3 * dim, crop * tokens, tokens, which * dim + h * head_dim, head_dim);
        };
        put_head(reference::attention(part(0), part(1), part(2), visible, head_dim), dim,
                 crop * tokens, h * head_dim, head_dim, expected);
      }
    }
    const Guarded input = Guarded::of(qkv, {crops * tokens, 3 * dim});
    const Guarded out(DType::kF32, {crops * tokens, dim});
    ops().self_attention(stream(), input.view(), static_cast<int>(tokens), heads, out.view());
    expect_close(out, expected, Tolerance::kAttention,
                 std::to_string(tokens) + " tokens, heads of " + std::to_string(head_dim));
    EXPECT_EQ(input.floats(), qkv) << "the input was changed";
  }
};

TEST_P(Attention, SelfAttentionMatchesReference) {
  check_self(1, 1, 2, 8, 1);
  check_self(2, 9, 2, 24, 1);
  check_self(1, 36, 3, 48, 1);
  check_self(2, 100, 1, 64, 1);
  check_self(1, 257, 2, 72, 1);
  check_self(1, 300, 1, 80, 1);
  check_self(1, 40, 1, 256, 1);
}

TEST_P(Attention, SelfAttentionOfAWholeCrop) { check_self(1, 729, 2, 72, 1); }

TEST_P(Attention, SelfAttentionWithLargeScores) { check_self(1, 70, 2, 64, 6); }

// One sequence of a step: `rows` new positions at the end of a context of `context`.
struct Sequence {
  std::int32_t rows, context, prefix;
};

struct Paged {
  int heads, kv_heads, head_dim, page_size;
  DType cache;

  HeadLayout layout() const { return {heads, kv_heads, head_dim, page_size}; }
};

class PagedAttention : public Attention {
 protected:
  // The k and v heads of qkv rows as pages of codes hold them.
  static Floats quantised(const Paged& shape, Floats qkv) {
    const auto head_dim = static_cast<std::size_t>(shape.head_dim);
    const auto heads = static_cast<std::size_t>(shape.heads + 2 * shape.kv_heads);
    for (std::size_t i = 0; i < qkv.size(); i += head_dim) {
      if (i / head_dim % heads < static_cast<std::size_t>(shape.heads)) continue;
      const std::span<float> head(qkv.data() + i, head_dim);
      float largest = 0;
      for (const float x : head) largest = std::max(largest, std::fabs(x));
      const float scale = largest / largest_code(shape.cache);
      for (float& x : head) x = scale > 0 ? nearest_code(shape.cache, x / scale) * scale : 0.0f;
    }
    return qkv;
  }

  // Fills a cache through rope_and_store_kv (no rotation), then compares one step. The rows'
  // output.
  Guarded check(const Paged& shape, const std::vector<Sequence>& sequences) {
    const std::int64_t head_dim = shape.head_dim;
    const std::int64_t width = (shape.heads + 2 * shape.kv_heads) * head_dim;
    const std::int64_t out_width = shape.heads * head_dim;
    const HeadLayout layout = shape.layout();
    const auto count = static_cast<std::int64_t>(sequences.size());
    std::int64_t max_pages = 0;
    for (const Sequence& s : sequences) {
      max_pages =
          std::max<std::int64_t>(max_pages, (s.context + shape.page_size - 1) / shape.page_size);
    }
    // Physical pages in a scattered order, one of them never used.
    const std::int64_t num_pages = count * max_pages + 1;
    Ints table;
    for (std::int64_t i = 0; i < count * max_pages; ++i) {
      const std::int64_t step = num_pages % 7 != 0 ? 7 : (num_pages % 5 != 0 ? 5 : 1);
      table.push_back(static_cast<std::int32_t>((i * step + 3) % num_pages));
    }
    const KvPool pool(shape.cache, layout, num_pages);
    const KvPages cache = pool.view();

    Ints starts = {0};
    Ints contexts;
    Ints prefixes;
    Floats step_rows;
    Doubles expected;
    for (std::int64_t s = 0; s < count; ++s) {
      const Sequence& sequence = sequences[static_cast<std::size_t>(s)];
      Floats qkv = random_floats(sequence.context * width, 100 + static_cast<std::uint64_t>(s), 2);
      if (shape.cache == DType::kBf16) qkv = rounded(qkv);
      store(layout, qkv, sequence.context, table.data() + s * max_pages, cache);
      starts.push_back(starts.back() + sequence.rows);
      contexts.push_back(sequence.context);
      prefixes.push_back(sequence.prefix);
      const std::int64_t first = sequence.context - sequence.rows;
      step_rows.insert(step_rows.end(), qkv.begin() + first * width, qkv.end());
      if (is_coded(shape.cache)) qkv = quantised(shape, qkv);
      append_expected(shape, sequence, qkv, expected);
    }
    const std::int64_t rows = starts.back();
    const Guarded input = Guarded::of(step_rows, {rows, width});
    const Guarded out(DType::kF32, {rows, out_width});
    ops().paged_attention(stream(), input.view(), cache, layout,
                          {.query_start = starts,
                           .context_len = contexts,
                           .prefix_len = prefixes,
                           .page_table = table,
                           .max_pages = max_pages},
                          out.view());
    expect_close(out, expected, Tolerance::kAttention,
                 std::to_string(rows) + " rows, pages of " + std::to_string(shape.page_size) +
                     ", heads of " + std::to_string(head_dim));
    pool.check_guards();
    return out;
  }

  void store(const HeadLayout& layout, const Floats& qkv, std::int64_t rows,
             const std::int32_t* table, const KvPages& cache) {
    Ints positions;
    Ints slots;
    for (std::int32_t i = 0; i < rows; ++i) {
      positions.push_back(i);
      slots.push_back(table[i / layout.page_size] * layout.page_size + i % layout.page_size);
    }
    Floats identity;
    for (std::int64_t i = 0; i < rows; ++i) identity.insert(identity.end(), {1.0f, 0.0f});
    const std::int64_t width =
        std::int64_t{layout.num_heads + 2 * layout.num_kv_heads} * layout.head_dim;
    const Guarded rope = Guarded::of(identity, {rows, 1, 2});
    const Guarded copy = Guarded::of(qkv, {rows, width});
    const Guarded at = Guarded::of(positions, {rows});
    const Guarded to = Guarded::of(slots, {rows});
    ops().rope_and_store_kv(stream(), rope.view(), at.view(), to.view(), layout, copy.view(),
                            cache);
  }

 private:
  static void append_expected(const Paged& shape, const Sequence& sequence, const Floats& qkv,
                              Doubles& expected) {
    const std::int64_t head_dim = shape.head_dim;
    const std::int64_t width = (shape.heads + 2 * shape.kv_heads) * head_dim;
    const std::int64_t first = sequence.context - sequence.rows;
    Doubles out(static_cast<std::size_t>(sequence.rows * shape.heads * head_dim));
    std::vector<std::int64_t> visible;
    for (std::int64_t i = first; i < sequence.context; ++i) {
      visible.push_back(i < sequence.prefix ? std::max<std::int64_t>(sequence.prefix, i + 1)
                                            : i + 1);
    }
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const std::int64_t kv_head = h * shape.kv_heads / shape.heads;
      const Doubles q = head_of(qkv, width, first, sequence.rows, h * head_dim, head_dim);
      const Doubles k =
          head_of(qkv, width, 0, sequence.context, (shape.heads + kv_head) * head_dim, head_dim);
      const Doubles v = head_of(qkv, width, 0, sequence.context,
                                (shape.heads + shape.kv_heads + kv_head) * head_dim, head_dim);
      put_head(reference::attention(q, k, v, visible, head_dim), shape.heads * head_dim, 0,
               h * head_dim, head_dim, out);
    }
    expected.insert(expected.end(), out.begin(), out.end());
  }
};

TEST_P(PagedAttention, PromptWithImagePrefixThenText) {
  check({2, 2, 64, 16, DType::kF32}, {{50, 50, 37}});
  check({2, 2, 24, 16, DType::kF32}, {{300, 300, 270}});
}

TEST_P(PagedAttention, CausalPromptAndLaterChunk) {
  check({2, 2, 64, 16, DType::kF32}, {{41, 41, 0}});
  check({3, 3, 72, 16, DType::kF32}, {{20, 333, 300}});
}

TEST_P(PagedAttention, DecodesOneRow) {
  check({4, 4, 64, 16, DType::kF32}, {{1, 1, 0}});
  check({4, 4, 64, 16, DType::kF32}, {{1, 775, 730}});
  check({4, 4, 72, 16, DType::kF32}, {{1, 17, 0}});
}

TEST_P(PagedAttention, SplitsTheContextWhenHeadsAreFew) {
  check({1, 1, 64, 16, DType::kF32}, {{1, 1500, 730}});
  check({1, 1, 48, 16, DType::kF32}, {{2, 900, 0}});
}

TEST_P(PagedAttention, QueriesShareKeyValueHeads) {
  check({4, 2, 64, 16, DType::kF32}, {{30, 45, 0}});
  check({6, 2, 48, 16, DType::kF32}, {{1, 100, 50}});
}

TEST_P(PagedAttention, MixedBatch) {
  check({2, 2, 64, 16, DType::kF32},
        {{1, 33, 0}, {40, 40, 30}, {1, 800, 730}, {3, 64, 0}, {12, 500, 490}});
}

TEST_P(PagedAttention, EveryPageSizeAndHeadSize) {
  for (const int page_size : {8, 16, 24, 40, 64}) {
    for (const int head_dim : {8, 24, 48, 64, 72, 128, 256}) {
      check({2, 1, head_dim, page_size, DType::kF32}, {{1, 77, 0}, {9, 61, 20}});
    }
  }
}

TEST_P(PagedAttention, Bf16PagesHoldRoundedValues) {
  for (const int page_size : {8, 16, 40}) {
    check({2, 2, 64, page_size, DType::kBf16}, {{1, 90, 0}, {30, 70, 50}});
    check({2, 1, 72, page_size, DType::kBf16}, {{1, 90, 0}, {30, 70, 50}});
  }
}

TEST_P(PagedAttention, PagesHoldCodesAndScales) {
  for (const DType cache : {DType::kI8, DType::kF8E4M3}) {
    for (const int page_size : {8, 16, 40, 64}) {
      check({2, 2, 64, page_size, cache}, {{1, 90, 0}, {30, 70, 50}});
      check({2, 1, 72, page_size, cache}, {{1, 300, 0}, {30, 270, 50}, {2, 5, 0}});
    }
  }
}

TEST_P(PagedAttention, PagesOfCodesErrWithinTheirStep) {
  const Paged exact{2, 2, 64, 16, DType::kF32};
  const std::vector<Sequence> sequences = {{1, 200, 0}, {40, 140, 100}};
  const Floats from_floats = check(exact, sequences).floats();
  for (const DType cache : {DType::kI8, DType::kF8E4M3}) {
    Paged coded = exact;
    coded.cache = cache;
    const Floats from_codes = check(coded, sequences).floats();
    // Elements are below 2, so half a step is at most 1 / 127, of e4m3 codes 16 / 448 * 2. A score
    // is off by less than the sum of 64 |q| of at most 2 times that over sqrt(64); a weight by a
    // factor of e to twice that; the mean of V, itself below 2, by that and by half a step. What is
    // seen is far less: errors of random sign.
    const double half = cache == DType::kI8 ? 1.0 / 127 : 1.0 / 14;
    double largest = 0;
    double squares = 0;
    for (std::size_t i = 0; i < from_codes.size(); ++i) {
      const double error = std::fabs(static_cast<double>(from_codes[i] - from_floats[i]));
      largest = std::max(largest, error);
      squares += error * error;
    }
    EXPECT_LT(largest, 2 * (std::exp(2 * 16 * half) - 1) + half);
    EXPECT_LT(std::sqrt(squares / static_cast<double>(from_codes.size())),
              cache == DType::kI8 ? 1.0 / 127 : 1.0 / 64);
    EXPECT_GT(largest, 1e-5) << "nothing was quantised";
  }
}

TEST_P(PagedAttention, PagesOfCodesOfZerosAreZeroAndOfNanAreNan) {
  for (const DType cache : {DType::kI8, DType::kF8E4M3}) {
    const HeadLayout layout{1, 1, 8, 8};
    const KvPool pool(cache, layout, 1);
    Floats qkv(3 * 24, 0.0f);
    qkv[24 + 16] = std::numeric_limits<float>::quiet_NaN();  // v of position 1
    const std::int32_t page = 0;
    store(layout, qkv, 3, &page, pool.view());
    const Guarded input = Guarded::of(qkv, {3, 24});
    const Guarded out(DType::kF32, {3, 8});
    ops().paged_attention(stream(), input.view(), pool.view(), layout,
                          {.query_start = Ints{0, 3},
                           .context_len = Ints{3},
                           .prefix_len = Ints{0},
                           .page_table = Ints{0},
                           .max_pages = 1},
                          out.view());
    for (std::size_t d = 0; d < 8; ++d) {
      EXPECT_EQ(out.floats()[d], 0.0f);
      EXPECT_TRUE(std::isnan(out.floats()[8 + d]));
    }
  }
}

// Tests for AArch64 run on an emulated processor (tests/arm64/run.sh).
#ifdef __aarch64__
constexpr bool kUnderQemu = true;
#else
constexpr bool kUnderQemu = false;
#endif

// One sequence whose rows are computed in chunks, one call each.
class ChunkedAttention : public PagedAttention {
 protected:
  // Lengths of the chunks that make up the context.
  using Chunks = std::vector<std::int32_t>;

  Guarded run(Device& device, const Paged& shape, const Floats& qkv, std::int32_t prefix,
              const Chunks& chunks) {
    const HeadLayout layout = shape.layout();
    const std::int64_t width = std::int64_t{shape.heads + 2 * shape.kv_heads} * shape.head_dim;
    const auto context = static_cast<std::int64_t>(qkv.size()) / width;
    const std::int64_t num_pages = (context + shape.page_size - 1) / shape.page_size;
    Ints table;
    for (std::int64_t i = 0; i < num_pages; ++i) {
      table.push_back(static_cast<std::int32_t>(num_pages - 1 - i));
    }
    const KvPool pool(shape.cache, layout, num_pages);
    const KvPages cache = pool.view();
    store(layout, qkv, context, table.data(), cache);
    const Guarded input = Guarded::of(qkv, {context, width});
    const Guarded out(DType::kF32, {context, std::int64_t{shape.heads} * shape.head_dim});
    std::int32_t begin = 0;
    for (const std::int32_t rows : chunks) {
      device.ops().paged_attention(stream(), input.view().rows(begin, rows), cache, layout,
                                   {.query_start = Ints{0, rows},
                                    .context_len = Ints{begin + rows},
                                    .prefix_len = Ints{prefix},
                                    .page_table = table,
                                    .max_pages = num_pages},
                                   out.view().rows(begin, rows));
      begin += rows;
    }
    EXPECT_EQ(begin, context);
    return out;
  }

  void check_chunkings(const Paged& shape) {
    // The emulator has no threads whose number could matter, and takes its time; as do sanitizers,
    // and qemu for AArch64.
    const bool is_slow =
        GetParam().device == "emulator" || testing_support::kInstrumented || kUnderQemu;
    const std::int32_t context = is_slow ? 130 : 520, prefix = is_slow ? 75 : 300;
    const std::int64_t width = std::int64_t{shape.heads + 2 * shape.kv_heads} * shape.head_dim;
    const Floats qkv = random_floats(context * width, 71, 2);
    const Guarded whole = run(*device_, shape, qkv, prefix, {context});
    Chunks row_by_row = {prefix};
    for (int i = prefix; i < context; ++i) row_by_row.push_back(1);
    std::vector<Chunks> chunkings = {
        {prefix, context - prefix}, {prefix + 1, 2, 3, 14, context - prefix - 20}, row_by_row};
    if (!is_slow) {
      chunkings.push_back({prefix + 1, 2, 3, 14, 100, 97, 3});
      chunkings.push_back({428, 1, 91});
    }
    auto other = GetParam().create(8);
    ASSERT_TRUE(other.ok());
    for (Device* device : {device_.get(), other->get()}) {
      for (const Chunks& chunks : chunkings) {
        const Guarded parts = run(*device, shape, qkv, prefix, chunks);
        EXPECT_EQ(row_bits(parts, 0, context), row_bits(whole, 0, context))
            << chunks.size() << " chunks, pages of " << shape.page_size << ", heads of "
            << shape.head_dim << ", " << dtype_name(shape.cache);
      }
    }
  }
};

TEST_P(ChunkedAttention, IsBitEqualAtAnyChunkingAndNumberOfThreads) {
  for (const DType cache : {DType::kF32, DType::kBf16, DType::kI8, DType::kF8E4M3}) {
    check_chunkings({2, 2, 64, 16, cache});
    check_chunkings({2, 1, 72, 16, cache});
    check_chunkings({1, 1, 40, 24, cache});
    check_chunkings({1, 1, 256, 8, cache});
    check_chunkings({3, 1, 8, 64, cache});
  }
}

TEST_P(PagedAttention, ASequenceIsBitEqualInAnyBatch) {
  const Paged shape{2, 2, 64, 16, DType::kF32};
  const Sequence alone{1, 400, 37};
  const Sequence chunk{30, 300, 37};
  const std::vector<Sequence> others = {alone, chunk, {1, 33, 0}, {60, 60, 50}, {2, 700, 0}};
  const Guarded together = check(shape, others);
  EXPECT_EQ(row_bits(check(shape, {alone}), 0, 1), row_bits(together, 0, 1));
  EXPECT_EQ(row_bits(check(shape, {alone, chunk}), 0, 31), row_bits(together, 0, 31));
}

FOVEA_CONFORMANCE(Attention);
FOVEA_CONFORMANCE(ChunkedAttention);
FOVEA_CONFORMANCE(PagedAttention);

}  // namespace
}  // namespace fovea::conformance
