// GPUs compute with bf16 activations where weights have 16 bits or fewer. Each operation on bf16
// must give what it gives on the same numbers in f32 (which the other tests hold to the reference),
// rounded; and where a GPU draws words, it must draw the processor's.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/registry.h"
#include "conformance/conformance.h"
#include "conformance/kv_pool.h"
#include "tensor/int4.h"

namespace fovea::conformance {
namespace {

constexpr double kRounded = 4e-3;   // half a step of bf16, 2^-9 of each element, and a little
constexpr double kAttended = 1e-2;  // weights of tensor-core attention are rounded as well

class SixteenBit : public ConformanceTest {
 protected:
  static Guarded tensor(DType dtype, const Floats& values, Shape shape) {
    return dtype == DType::kBf16 ? Guarded::bf16_of(values, shape) : Guarded::of(values, shape);
  }
  static Floats random16(std::int64_t count, std::uint64_t seed, float scale = 1) {
    return rounded(random_floats(count, seed, scale));
  }
  void check_experts(std::uint64_t num_experts, std::int64_t dim, std::int64_t inner,
                     std::int64_t k, const Ints& chosen);
  // run(dtype) -> result, once in f32 and once in bf16.
  template <class Run>
  void expect_equal_but_for_rounding(const Run& run, double tolerance, const std::string& what) {
    const Guarded exact = run(DType::kF32);
    expect_close(run(DType::kBf16), widened(exact.floats()), tolerance, what);
  }

  // Fills pages and attends to them: rows, context and prefix of each sequence.
  void check_pages_of(const Ints& query_start, const Ints& context, const Ints& prefix) {
    struct Case {
      int heads, kv_heads, head_dim, page_size;
      DType pages;
    };
    const int longest = *std::max_element(context.begin(), context.end());
    const auto sequences = static_cast<std::int64_t>(context.size());
    const std::int64_t total = query_start.back();
    for (const Case c : {Case{2, 2, 64, 16, DType::kBf16}, Case{4, 2, 64, 16, DType::kBf16},
                         Case{2, 1, 72, 16, DType::kBf16}, Case{2, 2, 32, 8, DType::kBf16},
                         Case{1, 1, 128, 24, DType::kBf16}, Case{1, 1, 256, 16, DType::kBf16},
                         Case{4, 1, 64, 32, DType::kBf16}, Case{2, 2, 64, 16, DType::kI8},
                         Case{1, 1, 256, 24, DType::kI8}, Case{4, 2, 64, 16, DType::kF8E4M3},
                         Case{1, 1, 128, 8, DType::kF8E4M3}, Case{2, 2, 32, 16, DType::kF8E4M3}}) {
      const HeadLayout heads{c.heads, c.kv_heads, c.head_dim, c.page_size};
      const std::int64_t width = std::int64_t{c.heads + 2 * c.kv_heads} * c.head_dim;
      const std::int64_t max_pages = (longest + c.page_size - 1) / c.page_size;
      // Physical pages in a scattered order, one of them never used.
      const std::int64_t num_pages = sequences * max_pages + 1;
      const std::int64_t stride = num_pages % 7 != 0 ? 7 : (num_pages % 5 != 0 ? 5 : 1);
      Ints table;
      for (std::int64_t i = 0; i + 1 < num_pages; ++i) {
        table.push_back(static_cast<std::int32_t>((i * stride + 3) % num_pages));
      }
      // A rotated key that is rounded to bf16 before it becomes codes may get others: those of
      // codes are not rotated.
      const float turn = is_coded(c.pages) ? 0 : 0.1f;
      Floats rope;
      for (int p = 0; p < longest; ++p) {
        for (int i = 0; i < 4; ++i) {
          rope.push_back(std::cos(turn * static_cast<float>(p * (i + 1))));
          rope.push_back(std::sin(turn * static_cast<float>(p * (i + 1))));
        }
      }
      const Guarded rope_tensor = Guarded::of(rope, {longest, 4, 2});
      const auto run = [&](DType type) {
        const KvPool pool(c.pages, heads, num_pages);
        const KvPages pages = pool.view();
        const Guarded out(type, {total, std::int64_t{c.heads} * c.head_dim});
        const Guarded step(type, {total, width});
        for (std::size_t s = 0; s < context.size(); ++s) {
          const Floats qkv = random16(context[s] * width, 20 + s, 2);
          const Guarded rows = tensor(type, qkv, {context[s], width});
          Ints positions, slots;
          for (std::int32_t i = 0; i < context[s]; ++i) {
            positions.push_back(i);
            slots.push_back(table[s * static_cast<std::size_t>(max_pages) +
                                  static_cast<std::size_t>(i / c.page_size)] *
                                c.page_size +
                            i % c.page_size);
          }
          ops().rope_and_store_kv(
              stream(), rope_tensor.view(), Guarded::of(positions, {context[s]}).view(),
              Guarded::of(slots, {context[s]}).view(), heads, rows.view(), pages);
          const std::int32_t count = query_start[s + 1] - query_start[s];
          const TensorView from = rows.view().rows(context[s] - count, count);
          std::copy_n(from.data, from.size_bytes(), step.view().rows(query_start[s], count).data);
        }
        ops().paged_attention(stream(), step.view(), pages, heads,
                              {.query_start = query_start,
                               .context_len = context,
                               .prefix_len = prefix,
                               .page_table = table,
                               .max_pages = max_pages},
                              out.view());
        pool.check_guards();
        return out;
      };
      // Rotated keys are rounded to bf16 before they meet the cache, or in it; codes are widened.
      expect_equal_but_for_rounding(run, is_coded(c.pages) ? 2 * kAttended : kAttended,
                                    "heads of " + std::to_string(c.head_dim) + ", pages of " +
                                        std::string(dtype_name(c.pages)));
    }
  }
};

TEST_P(SixteenBit, LinearForEveryNumberOfRows) {
  struct Product {
    std::int64_t m, n, k;
  };
  std::vector<Product> products = {{1, 40, 64},    {3, 17, 96},    {8, 130, 512}, {9, 64, 72},
                                   {20, 136, 160}, {32, 48, 1024}, {33, 64, 40},  {70, 264, 136},
                                   {150, 72, 588}, {50, 7, 33},    {2, 40, 8192}, {13, 24, 2336},
                                   {16, 24, 2048}};
  // Enough for every block of a large device to have several tiles.
  if (GetParam().device == "cuda") products.insert(products.end(), {{7, 9000, 96}, {12, 9000, 96}});
  for (const Product s : products) {
    const Floats w = random16(s.n * s.k, 2);
    const Floats bias = random_floats(s.n, 3);
    const Guarded weight = Guarded::of(w, {s.n, s.k}), bias_tensor = Guarded::of(bias, {s.n});
    for (const DType storage : {DType::kBf16, DType::kF8E4M3, DType::kInt4}) {
      if (storage == DType::kInt4 && !fits_int4(s.k)) continue;
      const bool f8 = storage == DType::kF8E4M3;
      const Floats x = f8 ? small_numbers(s.m, s.k, 1) : random16(s.m * s.k, 1);
      const auto matrix = ops().pack({weight.view(), {}}, storage).value();
      for (const Activation activation :
           {Activation::kNone, Activation::kGeluTanh, Activation::kGeluErf}) {
        const std::string what = std::to_string(s.m) + " x " + std::to_string(s.n) + " x " +
                                 std::to_string(s.k) + " " + std::string(dtype_name(storage));
        const auto run = [&](DType x_type, DType y_type) {
          const Guarded y(y_type, {s.m, s.n});
          ops().linear(stream(), {.x = tensor(x_type, x, {s.m, s.k}).view(),
                                  .weight = matrix.get(),
                                  .bias = bias_tensor.view(),
                                  .activation = activation,
                                  .y = y.view()});
          return y;
        };
        // Where rows are not aligned to 16 bytes, cuBLASLt rounds the product before it adds the
        // bias.
        expect_equal_but_for_rounding([&](DType type) { return run(type, type); },
                                      s.k % 8 == 0 ? kRounded : 2 * kRounded, what);
        const Doubles exact = widened(run(DType::kF32, DType::kF32).floats());
        // The library's GELU is its own, to the digits of its output. Weights in 8 bits may be
        // widened to bf16 for it, scale and all.
        double tolerance = activation == Activation::kNone ? 1e-5 : 1e-3;
        if (f8) tolerance = kRounded;
        expect_close(run(DType::kBf16, DType::kF32), exact, tolerance, what + " to f32");
      }
    }
  }
}

TEST_P(SixteenBit, ProductsAtOnceAreThoseOneAfterTheOther) {
  struct Product {
    std::int64_t n;
    DType storage;
    DType y;
  };
  const std::int64_t k = 160;
  for (const std::int64_t rows : {1, 9, 16, 24, 40}) {
    for (const auto& [first, second] : {std::pair{Product{200, DType::kBf16, DType::kBf16},
                                                  Product{33, DType::kBf16, DType::kF32}},
                                        std::pair{Product{48, DType::kF8E4M3, DType::kBf16},
                                                  Product{96, DType::kF8E4M3, DType::kBf16}},
                                        std::pair{Product{48, DType::kF8E4M3, DType::kBf16},
                                                  Product{96, DType::kBf16, DType::kF32}},
                                        std::pair{Product{200, DType::kInt4, DType::kBf16},
                                                  Product{36, DType::kInt4, DType::kF32}},
                                        std::pair{Product{33, DType::kBf16, DType::kBf16},
                                                  Product{96, DType::kInt4, DType::kBf16}},
                                        std::pair{Product{48, DType::kInt4, DType::kBf16},
                                                  Product{96, DType::kF8E4M3, DType::kF32}}}) {
      const Guarded x = Guarded::bf16_of(random_floats(rows * k, 21), {rows, k});
      std::vector<std::unique_ptr<const Matrix>> weights;
      std::vector<Guarded> alone, together;
      std::vector<LinearArgs> products;
      for (const Product& product : {first, second}) {
        const Guarded w = Guarded::of(random16(product.n * k, 22), {product.n, k});
        weights.push_back(ops().pack({w.view(), {}}, product.storage).value());
        alone.emplace_back(product.y, Shape{rows, product.n});
        together.emplace_back(product.y, Shape{rows, product.n});
        LinearArgs args{.x = x.view(),
                        .weight = weights.back().get(),
                        .activation = Activation::kGeluTanh,
                        .y = alone.back().view()};
        ops().linear(stream(), args);
        args.y = together.back().view();
        products.push_back(args);
      }
      ops().linears(stream(), products);
      for (std::size_t i = 0; i < products.size(); ++i) {
        EXPECT_EQ(row_bits(together[i], 0, rows), row_bits(alone[i], 0, rows))
            << rows << " rows, product " << i;
      }
    }
  }
}

TEST_P(SixteenBit, LinearAlsoActivatesWhatItStores) {
  const std::int64_t n = 72, k = 64;
  for (const std::int64_t rows : {1, 3, 16, 40}) {
    const Guarded x = Guarded::bf16_of(random_floats(rows * k, 31), {rows, k});
    const Guarded add = Guarded::of(random_floats(n, 32), {1, n});
    for (const DType storage : {DType::kBf16, DType::kF8E4M3, DType::kInt4}) {
      const Guarded w = Guarded::of(random16(n * k, 33), {n, k});
      const auto matrix = ops().pack({w.view(), {}}, storage).value();
      for (const DType type : {DType::kBf16, DType::kF32}) {
        for (const bool together : {false, true}) {
          const Guarded y(type, {rows, n}), activated(type, {rows, n}), expected(type, {rows, n});
          const Guarded other(type, {rows, n});
          LinearArgs args{.x = x.view(),
                          .weight = matrix.get(),
                          .add = add.view(),
                          .y = y.view(),
                          .activated = activated.view(),
                          .activated_by = Activation::kGeluTanh};
          if (together) {
            LinearArgs plain = args;
            plain.y = other.view();
            plain.activated = {};
            ops().linears(stream(), std::array{args, plain});
          } else {
            ops().linear(stream(), args);
          }
          ops().activate(stream(), y.view(), Activation::kGeluTanh, expected.view());
          ASSERT_TRUE(stream().synchronize().ok());
          EXPECT_EQ(row_bits(activated, 0, rows), row_bits(expected, 0, rows))
              << rows << " rows, " << dtype_name(storage) << " to " << dtype_name(type);
          if (together) {
            EXPECT_EQ(row_bits(other, 0, rows), row_bits(y, 0, rows));
          }
        }
      }
    }
  }
}

TEST_P(SixteenBit, LinearAddsResidualsAndPeriodicRows) {
  const std::int64_t n = 64, k = 96;
  for (const std::int64_t m : {4, 12, 48, 132}) {
    const Floats x = random16(m * k, 5), w = random16(n * k, 6), residual = random16(m * n, 7);
    const Floats periodic = random_floats(m / 2 * n, 8), bias = random_floats(n, 9);
    const Guarded bias_tensor = Guarded::of(bias, {n});
    const auto matrix = ops().pack({Guarded::of(w, {n, k}).view(), {}}, DType::kBf16).value();
    const Guarded add = Guarded::of(periodic, {m / 2, n});
    for (const Activation activation : {Activation::kNone, Activation::kGeluTanh}) {
      expect_equal_but_for_rounding(
          [&](DType type) {
            const Guarded y = tensor(type, residual, {m, n});
            ops().linear(stream(), {.x = tensor(type, x, {m, k}).view(),
                                    .weight = matrix.get(),
                                    .bias = bias_tensor.view(),
                                    .activation = activation,
                                    .add = y.view(),
                                    .y = y.view()});
            return y;
          },
          // cuBLASLt may round the product before it adds what was there.
          2 * kRounded, std::to_string(m) + " rows, residual");
      expect_equal_but_for_rounding(
          [&](DType type) {
            const Guarded y(type, {m, n});
            ops().linear(stream(), {.x = tensor(type, x, {m, k}).view(),
                                    .weight = matrix.get(),
                                    .bias = bias_tensor.view(),
                                    .activation = activation,
                                    .add = add.view(),
                                    .y = y.view()});
            return y;
          },
          // The sum is rounded once more where the addition is a step of its own.
          2 * kRounded, std::to_string(m) + " rows, periodic");
    }
  }
}

TEST_P(SixteenBit, FewRowsAreBitEqualAtAnyBatch) {
  const std::int64_t n = 100, k = 2400, rows = 21;
  const Guarded x = Guarded::bf16_of(random_floats(rows * k, 11), {rows, k});
  const Guarded w = Guarded::of(random_floats(n * k, 12), {n, k});
  const auto matrix = ops().pack({w.view(), {}}, DType::kBf16).value();
  const auto run = [&](std::int64_t begin, std::int64_t count) {
    const Guarded y(DType::kF32, {count, n});
    ops().linear(stream(),
                 {.x = x.view().rows(begin, count), .weight = matrix.get(), .y = y.view()});
    return y;
  };
  std::vector<std::vector<std::uint32_t>> alone;
  for (std::int64_t row = 0; row < rows; ++row) alone.push_back(row_bits(run(row, 1), 0, 1));
  for (const std::int64_t count : {2, 7, 8, 9, 16}) {
    for (const std::int64_t begin : {std::int64_t{0}, std::int64_t{5}, rows - count}) {
      const Guarded together = run(begin, count);
      for (std::int64_t row = 0; row < count; ++row) {
        EXPECT_EQ(row_bits(together, row, 1), alone[static_cast<std::size_t>(begin + row)])
            << "row " << row << " of " << begin << " + " << count;
      }
    }
  }
}

TEST_P(SixteenBit, SelfAttention) {
  struct Case {
    std::int64_t crops, tokens;
    int heads;
    std::int64_t head_dim;
  };
  for (const Case c :
       {Case{1, 1, 2, 8}, Case{2, 9, 2, 24}, Case{1, 36, 3, 48}, Case{2, 100, 1, 64},
        Case{1, 257, 2, 72}, Case{1, 130, 1, 80}, Case{1, 65, 1, 128}, Case{1, 40, 1, 256},
        Case{2, 1, 16, 72}, Case{1, 64, 1, 72}, Case{2, 65, 16, 72}, Case{3, 96, 1, 72},
        Case{2, 128, 1, 72}, Case{1, 129, 1, 64}, Case{2, 200, 1, 64}, Case{1, 1, 1, 64},
        Case{3, 729, 2, 72}, Case{1, 729, 1, 64}}) {
    if (c.tokens > 300 && GetParam().device == "emulator") continue;  // it takes its time
    const std::int64_t dim = c.heads * c.head_dim;
    const Floats qkv = random16(c.crops * c.tokens * 3 * dim, 7, 2);
    expect_equal_but_for_rounding(
        [&](DType type) {
          const Guarded out(type, {c.crops * c.tokens, dim});
          ops().self_attention(stream(), tensor(type, qkv, {c.crops * c.tokens, 3 * dim}).view(),
                               static_cast<int>(c.tokens), c.heads, out.view());
          return out;
        },
        kAttended, std::to_string(c.tokens) + " tokens, heads of " + std::to_string(c.head_dim));
  }
}

TEST_P(SixteenBit, ACropIsBitEqualInAnyBatch) {
  const std::int64_t crops = 3, tokens = 150;
  const int heads = 2;
  for (const std::int64_t head_dim : {64, 72, 80}) {
    const std::int64_t dim = heads * head_dim, rows = crops * tokens;
    const Guarded qkv = Guarded::bf16_of(random_floats(rows * 3 * dim, 7, 3), {rows, 3 * dim});
    const auto run = [&](std::int64_t begin, std::int64_t count) {
      const Guarded out(DType::kBf16, {count, dim});
      ops().self_attention(stream(), qkv.view().rows(begin, count), static_cast<int>(tokens), heads,
                           out.view());
      return out;
    };
    const Guarded together = run(0, rows);
    for (std::int64_t crop = 0; crop < crops; ++crop) {
      EXPECT_EQ(row_bits(run(crop * tokens, tokens), 0, tokens),
                row_bits(together, crop * tokens, tokens))
          << "crop " << crop << ", heads of " << head_dim;
    }
  }
}

TEST_P(SixteenBit, PagedAttention) {
  // Rows, context and prefix of each sequence: prompts, chunks, decoded rows.
  check_pages_of({0, 50, 51, 53, 95, 96}, {50, 633, 70, 200, 1}, {37, 100, 0, 190, 0});
}

TEST_P(SixteenBit, PagedAttentionOfLongPrompts) {
  if (GetParam().device == "emulator") return;  // it takes its time
  check_pages_of({0, 300, 429, 434, 562, 660}, {300, 650, 97, 128, 98}, {193, 600, 0, 128, 0});
  check_pages_of({0, 775}, {775}, {730});
}

// More than CUDA widens at once; elsewhere it is the same with less of it.
TEST_P(SixteenBit, PromptsOverCodesAreBitEqualAmongAnyOthers) {
  const std::int32_t context = GetParam().device == "cuda" ? 4000 : 40, rows = 7, sequences = 5;
  const HeadLayout heads{16, 16, 64, 16};
  const std::int64_t max_pages = (context + heads.page_size - 1) / heads.page_size;
  const std::int64_t width = std::int64_t{3} * heads.num_heads * heads.head_dim;
  const std::int64_t out_width = std::int64_t{heads.num_heads} * heads.head_dim;
  for (const DType type : {DType::kI8, DType::kF8E4M3}) {
    const KvPool pool(type, heads, max_pages * sequences);
    pool.fill(51);
    const Guarded qkv =
        Guarded::bf16_of(random16(sequences * rows * width, 52, 2), {sequences * rows, width});
    // The sequences [first, first + count) of those that there are.
    const auto run = [&](std::int32_t first, std::int32_t count) {
      Ints starts = {0}, table;
      for (std::int32_t s = 0; s < count; ++s) {
        starts.push_back(starts.back() + rows);
        for (std::int32_t p = 0; p < max_pages; ++p) table.push_back(p * sequences + first + s);
      }
      const Ints contexts(static_cast<std::size_t>(count), context);
      const Ints prefixes(static_cast<std::size_t>(count), 0);
      const Guarded out(DType::kBf16, {std::int64_t{count} * rows, out_width});
      ops().paged_attention(stream(), qkv.view().rows(first * rows, count * rows), pool.view(),
                            heads, {starts, contexts, prefixes, table, max_pages}, out.view());
      EXPECT_TRUE(stream().synchronize().ok());
      return out;
    };
    const Guarded all = run(0, sequences);
    for (const std::int32_t s : {0, 3, 4}) {
      EXPECT_EQ(row_bits(run(s, 1), 0, rows), row_bits(all, s * rows, rows))
          << "sequence " << s << ", pages of " << dtype_name(type);
    }
  }
}

TEST_P(SixteenBit, LayerNormOfEveryWidth) {
  for (const std::int64_t width : {1, 8, 72, 264, 1152, 2048, 2056, 4096, 8192, 8200}) {
    const std::int64_t rows = 3;
    const Floats x = random16(rows * width, 35, 3), weight = random_floats(width, 36);
    const Floats bias = random_floats(width, 37);
    const Guarded w = Guarded::of(weight, {width}), b = Guarded::of(bias, {width});
    expect_equal_but_for_rounding(
        [&](DType type) {
          const Guarded y = tensor(type, x, {rows, width});
          ops().layer_norm(stream(), y.view(), w.view(), b.view(), 1e-5f, y.view());
          return y;
        },
        kRounded, "width " + std::to_string(width));
  }
}

TEST_P(SixteenBit, RowOperations) {
  const std::int64_t rows = 7, width = 130;
  const Floats x = random16(rows * width, 31, 3), weight = random_floats(width, 32);
  const Floats bias = random_floats(width, 33), table = random16(20 * width, 34);
  const Guarded w = Guarded::of(weight, {width}), b = Guarded::of(bias, {width});
  expect_equal_but_for_rounding(
      [&](DType type) {
        const Guarded y(type, {rows, width});
        ops().layer_norm(stream(), tensor(type, x, {rows, width}).view(), w.view(), b.view(), 1e-5f,
                         y.view());
        return y;
      },
      kRounded, "layer_norm");
  for (const Activation activation : {Activation::kGeluTanh, Activation::kGeluErf}) {
    expect_equal_but_for_rounding(
        [&](DType type) {
          const Guarded y = tensor(type, x, {rows, width});
          ops().activate(stream(), y.view(), activation, y.view());
          return y;
        },
        kRounded, "activate");
  }
  const Guarded ids = Guarded::of(Ints{3, -1, 19, 0, -1, 3, 7}, {rows});
  for (const DType table_type : {DType::kF32, DType::kBf16}) {
    expect_equal_but_for_rounding(
        [&](DType type) {
          const Guarded y = tensor(type, x, {rows, width});
          ops().embed(stream(), tensor(table_type, table, {20, width}).view(), ids.view(),
                      y.view());
          return y;
        },
        Tolerance::kExact, "embed");
  }
  const Guarded places = Guarded::of(Ints{5, 0, 2, 6, 1, 3, 4}, {rows});
  expect_equal_but_for_rounding(
      [&](DType type) {
        const Guarded moved(type, {rows, width}), back(type, {rows, width});
        const Guarded from = tensor(type, x, {rows, width});
        ops().scatter_rows(stream(), from.view(), places.view(), moved.view());
        ops().gather_rows(stream(), moved.view(), places.view(), back.view());
        EXPECT_EQ(back.floats(), from.floats());
        return moved;
      },
      Tolerance::kExact, "scatter_rows");
  const HeadLayout heads{3, 3, 24, 16};
  const Floats qkv = random16(rows * 216, 35), tau = random16(rows * 6, 36);
  const Guarded scale = Guarded::of(random_floats(20 * 3, 37), {20, 3});
  const Guarded positions = Guarded::of(Ints{0, 3, 19, 4, 5, 6, 7}, {rows});
  expect_equal_but_for_rounding(
      [&](DType type) {
        const Guarded y = tensor(type, qkv, {rows, 216});
        ops().tau_scale(stream(), tensor(type, tau, {rows, 6}).view(), scale.view(),
                        positions.view(), heads, y.view());
        return y;
      },
      kRounded, "tau_scale");
  const Guarded values = Guarded::of(random_floats(rows * 2, 38), {rows, 2});
  const Guarded frequencies = Guarded::of(random_floats(2 * 33, 39), {2, 33});
  expect_equal_but_for_rounding(
      [&](DType type) {
        const Guarded y(type, {rows, 66});
        ops().fourier_features(stream(), values.view(), frequencies.view(), true, y.view());
        return y;
      },
      Tolerance::kExact, "fourier_features");
}

TEST_P(SixteenBit, Pictures) {
  std::vector<std::uint8_t> crops;
  for (const std::int32_t value : random_ints(2 * 12 * 12 * 3, 256, 41)) {
    crops.push_back(static_cast<std::uint8_t>(value));
  }
  const Guarded pixels = Guarded::of(crops, {2, 12, 12, 3});
  const Guarded values = Guarded::of(random16(256, 42), {256});
  expect_equal_but_for_rounding(
      [&](DType type) {
        const Guarded y(type, {2 * 9, 48});
        ops().patchify(stream(), pixels.view(), values.view(), 4, y.view());
        return y;
      },
      Tolerance::kExact, "patchify");
  const Floats features = random16(7 * 81 * 20, 43);
  expect_equal_but_for_rounding(
      [&](DType type) {
        const Guarded y(type, {81, 40});
        ops().stitch_and_pool(stream(), tensor(type, features, {7, 81, 20}).view(), 2, 3, 1,
                              y.view());
        return y;
      },
      kRounded, "stitch_and_pool");
}

// moe_mlp of `chosen` [rows, k], in each storage.
void SixteenBit::check_experts(std::uint64_t num_experts, std::int64_t dim, std::int64_t inner,
                               std::int64_t k, const Ints& chosen) {
  const std::int64_t rows = static_cast<std::int64_t>(chosen.size()) / k;
  for (const DType storage : {DType::kBf16, DType::kF8E4M3, DType::kInt4}) {
    std::vector<std::unique_ptr<const Matrix>> up, down;
    for (std::uint64_t e = 0; e < num_experts; ++e) {
      for (auto [list, m, n] : {std::tuple{&up, 2 * inner, dim}, std::tuple{&down, dim, inner}}) {
        const Guarded w = Guarded::of(random16(m * n, 80 + e, 0.3f), {m, n});
        list->push_back(ops().pack({w.view(), {}}, storage).value());
      }
    }
    const Guarded experts = Guarded::of(chosen, {rows, k});
    const Guarded weights = Guarded::of(random_floats(rows * k, 91), {rows, k});
    // In eight bits, x and then what comes out of the gate may be rounded to eight bits as well
    // where there are many rows: 2^-5 of each element on average, which adds up as noise does.
    const bool f8 = storage == DType::kF8E4M3;
    // Else the gate and y are rounded, of many rows each expert's result too.
    const double tolerance = f8 && rows > 64 ? 4e-2 : (rows > 64 ? 3 : 2) * kRounded;
    const Floats x = f8 ? small_numbers(rows, dim, 92) : random16(rows * dim, 92);
    const Floats before = random16(rows * dim, 93);
    expect_equal_but_for_rounding(
        [&](DType type) {
          const Guarded y = tensor(type, before, {rows, dim});
          ops().moe_mlp(stream(), tensor(type, x, {rows, dim}).view(), experts.view(),
                        weights.view(), up, down, nullptr, y.view());
          return y;
        },
        tolerance,
        std::to_string(rows) + " rows of " + std::to_string(dim) + ", " +
            std::to_string(num_experts) + " experts in " + std::string(dtype_name(storage)));
  }
}

TEST_P(SixteenBit, RoutedExperts) {
  const std::int32_t num_experts = 9;
  struct Case {
    std::int32_t rows;
    std::int64_t dim, inner;
  };
  for (const Case c :
       {Case{1, 64, 32}, Case{2, 96, 64}, Case{6, 352, 96}, Case{40, 64, 64}, Case{64, 160, 32},
        Case{65, 96, 160}, Case{129, 64, 288}, Case{500, 192, 96}, Case{775, 544, 32}}) {
    // The last expert is chosen by every row, the one before it by none.
    Ints chosen;
    for (std::int32_t row = 0; row < c.rows; ++row) {
      chosen.insert(chosen.end(),
                    {row % (num_experts - 2), num_experts - 1, (row + 3) % (num_experts - 2)});
    }
    check_experts(num_experts, c.dim, c.inner, 3, chosen);
  }
}

TEST_P(SixteenBit, ExpertsOfAnyNumberOfPlaces) {
  struct Case {
    std::int64_t dim, inner, k;
    Ints places;  // of each expert
  };
  Ints many(100);  // 0 to 61 places each
  for (std::size_t e = 0; e < many.size(); ++e) many[e] = static_cast<std::int32_t>(e * 37 % 62);
  many.back() += 8 - std::accumulate(many.begin(), many.end(), 0) % 8;
  for (const Case& c :
       {Case{96, 160, 2, {0, 1, 63, 64, 65, 129}}, Case{64, 32, 1, {600}},
        Case{352, 96, 2, {128, 15, 127, 257, 0, 16, 17, 256}}, Case{192, 64, 8, many}}) {
    // One expert after the other, so that a row may choose one several times.
    Ints chosen;
    for (std::size_t e = 0; e < c.places.size(); ++e) {
      chosen.insert(chosen.end(), static_cast<std::size_t>(c.places[e]),
                    static_cast<std::int32_t>(e));
    }
    ASSERT_EQ(chosen.size() % static_cast<std::size_t>(c.k), 0u);
    check_experts(c.places.size(), c.dim, c.inner, c.k, chosen);
  }
}

TEST_P(SixteenBit, ExpertsAndAdapters) {
  const std::int64_t num_experts = 5, k = 3;
  struct Case {
    std::int64_t rows, dim, inner;
    DType even, odd;  // what every other expert is stored as
  };
  for (const Case c :
       {Case{37, 40, 24, DType::kBf16, DType::kF8E4M3}, Case{1, 64, 32, DType::kBf16, DType::kBf16},
        Case{20, 96, 64, DType::kF8E4M3, DType::kF8E4M3},
        Case{40, 64, 64, DType::kBf16, DType::kBf16}, Case{37, 64, 64, DType::kInt4, DType::kInt4},
        Case{90, 96, 160, DType::kBf16, DType::kBf16},
        Case{90, 192, 96, DType::kF8E4M3, DType::kF8E4M3},
        Case{90, 64, 128, DType::kInt4, DType::kInt4}}) {
    std::vector<std::unique_ptr<const Matrix>> up, down;
    for (std::uint64_t e = 0; e < num_experts; ++e) {
      for (auto [list, m, n] :
           {std::tuple{&up, 2 * c.inner, c.dim}, std::tuple{&down, c.dim, c.inner}}) {
        const Guarded w = Guarded::of(random16(m * n, 50 + e, 0.3f), {m, n});
        list->push_back(ops().pack({w.view(), {}}, e % 2 == 0 ? c.even : c.odd).value());
      }
    }
    Ints experts;
    for (std::int64_t i = 0; i < c.rows * k; ++i) {
      experts.push_back(static_cast<std::int32_t>((i / k + i % k) % num_experts));
    }
    const Guarded chosen = Guarded::of(experts, {c.rows, k});
    const Guarded weights = Guarded::of(random_floats(c.rows * k, 61), {c.rows, k});
    // As in check_experts(); experts of two types meet the portable kernels, which round y alone.
    const bool f8 = c.even == DType::kF8E4M3 && c.odd == c.even, many = c.rows > 64;
    const double tolerance = c.even != c.odd ? kRounded
                             : f8 && many    ? 4e-2
                                             : (many ? 3 : 2) * kRounded;
    const Floats x = f8 ? small_numbers(c.rows, c.dim, 62) : random16(c.rows * c.dim, 62);
    const Floats before = random16(c.rows * c.dim, 63);
    // The second half of the rows has none.
    const Ints ranks = {4, 2}, slots = {1, 0, -1};
    const auto rows = static_cast<std::int32_t>(c.rows);
    const Ints query_start = {0, 1, (rows + 1) / 2, rows};
    const auto adapter = [&](std::int64_t width, std::uint64_t seed) {
      return Guarded::bf16_of(random_floats(2 * num_experts * 4 * width, seed, 0.2f),
                              {2, num_experts, 4, width});
    };
    const Guarded up_a = adapter(c.dim, 71), up_b = adapter(2 * c.inner, 72);
    const Guarded down_a = adapter(c.inner, 73), down_b = adapter(c.dim, 74);
    const MoeLora lora{{up_a.view(), up_b.view(), ranks},
                       {down_a.view(), down_b.view(), ranks},
                       {query_start, slots}};
    expect_equal_but_for_rounding(
        [&](DType type) {
          const Guarded y = tensor(type, before, {c.rows, c.dim});
          ops().moe_mlp(stream(), tensor(type, x, {c.rows, c.dim}).view(), chosen.view(),
                        weights.view(), up, down, &lora, y.view());
          return y;
        },
        tolerance, std::to_string(c.rows) + " rows, experts of " + std::string(dtype_name(c.even)));
  }
}

TEST_P(SixteenBit, Adapters) {
  const std::int64_t rows = 37, dim = 40;
  const Floats x = random16(rows * dim, 62), before = random16(rows * dim, 63);
  const Ints ranks = {4, 2}, query_start = {0, 1, 20, 37}, slots = {1, 0, -1};
  const Guarded a = Guarded::bf16_of(random_floats(2 * 4 * dim, 75, 0.2f), {2, 4, dim});
  const Guarded b = Guarded::bf16_of(random_floats(2 * 4 * dim, 76, 0.2f), {2, 4, dim});
  expect_equal_but_for_rounding(
      [&](DType type) {
        const Guarded y = tensor(type, before, {rows, dim});
        ops().lora(stream(), {.x = tensor(type, x, {rows, dim}).view(),
                              .weights = {a.view(), b.view(), ranks},
                              .batch = {query_start, slots},
                              .y = y.view()});
        return y;
      },
      kRounded, "lora");
}

// Rows of all kinds at once. The processor sums exponentials of f64, kernels those of f32 in whole
// numbers: a uniform number would have to fall within 1e-6 of a border to tell them apart.
TEST_P(SixteenBit, DrawsTheWordsThatTheProcessorDraws) {
  auto cpu = create_device("cpu", {.num_threads = 2});
  ASSERT_TRUE(cpu.ok());
  const auto cpu_stream = (*cpu)->make_stream().value();
  for (const std::int64_t vocab : {5, 1000, 51200}) {
    const int count = GetParam().device == "emulator" && vocab > 1000 ? 24 : 240;
    const Floats logits = random_floats(count * vocab, 81, 6);
    const Ints masks = random_ints(40, static_cast<std::int32_t>(vocab), 82);
    std::vector<SeenWord> seen;
    std::vector<WordBias> biases;
    for (std::int32_t i = 0; i < std::min<std::int64_t>(vocab, 30); ++i) {
      seen.push_back({i, i % 4});
      biases.push_back({i, static_cast<float>(i % 5) - 2});
    }
    std::vector<SamplingRow> rows;
    for (int r = 0; r < count; ++r) {
      SamplingRow row;
      row.temperature = r % 7 == 0 ? 0.0f : 0.3f * static_cast<float>(r % 6 + 1);
      row.top_p = r % 3 == 0 ? 1.0f : 0.25f * static_cast<float>(r % 4) + 0.2f;
      row.min_p = r % 5 == 0 ? 0.05f : 0.0f;
      row.top_k = r % 4 == 0 ? 3 + r : 0;
      row.seed = static_cast<std::uint64_t>(r) << 33 | 7;
      row.position = static_cast<std::uint64_t>(r * r);
      if (r % 8 == 1) row.allowed_count = 20;
      if (r % 8 == 2) row.suppressed_begin = 20, row.suppressed_count = 20;
      if (r % 8 == 3) {
        row.repetition_penalty = 1.3f, row.presence_penalty = 0.5f, row.frequency_penalty = 0.2f;
        row.seen_count = static_cast<std::int32_t>(seen.size());
      }
      if (r % 8 == 4) row.bias_count = static_cast<std::int32_t>(biases.size());
      row.num_top = r % 16 == 5 ? kMaxTopWords : 0;
      rows.push_back(row);
    }
    const Guarded input = Guarded::of(logits, {count, vocab});
    struct Answer {
      Ints ids, top_ids;
      Floats logprobs;
    };
    const auto run = [&](Device& device, Stream& on) {
      const Guarded ids(DType::kI32, {count}), logprobs(DType::kF32, {count});
      const Guarded top_ids(DType::kI32, {count, kMaxTopWords});
      const Guarded top_logprobs(DType::kF32, {count, kMaxTopWords});
      device.ops().sample(on, {.logits = input.view(),
                               .rows = rows,
                               .mask_ids = masks,
                               .ids = ids.view(),
                               .logprobs = logprobs.view(),
                               .seen = seen,
                               .biases = biases,
                               .top_ids = top_ids.view(),
                               .top_logprobs = top_logprobs.view()});
      return Answer{ids.ints(), top_ids.ints(), logprobs.floats()};
    };
    const Answer wanted = run(**cpu, *cpu_stream), got = run(*device_, stream());
    EXPECT_EQ(got.ids, wanted.ids) << vocab << " words";
    EXPECT_EQ(got.top_ids, wanted.top_ids) << vocab << " words";
    for (std::size_t r = 0; r < rows.size(); ++r) {
      if (std::isinf(wanted.logprobs[r])) {  // nothing was left to choose from
        EXPECT_EQ(got.logprobs[r], wanted.logprobs[r]) << "row " << r;
      } else {
        EXPECT_NEAR(got.logprobs[r], wanted.logprobs[r], 1e-5) << "row " << r;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, SixteenBit, testing::ValuesIn(gpu_targets()),
                         [](const auto& test) { return test.param.name(); });

}  // namespace
}  // namespace fovea::conformance
