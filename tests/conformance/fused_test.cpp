// Operations that stand for several others in a row: they must give what these give one by one, and
// a decoded layer of them must not read what is not there yet. The processor takes them one by one:
// there is nothing to compare.

#include <algorithm>
#include <array>
#include <cmath>

#include "conformance/conformance.h"
#include "conformance/kv_pool.h"

namespace fovea::conformance {
namespace {

class Fused : public ConformanceTest {
 protected:
  // Intermediate results that are rounded on one side only; and the weights of attention.
  static constexpr double kRounded = 8e-3, kAttended = 1e-2;

  static Floats random16(std::int64_t count, std::uint64_t seed, float scale = 1) {
    return rounded(random_floats(count, seed, scale));
  }
  DType activations() { return ops().activation_dtype(DType::kBf16); }
  Guarded tensor(const Floats& values, Shape shape) {
    return activations() == DType::kBf16 ? Guarded::bf16_of(values, shape)
                                         : Guarded::of(values, shape);
  }
  std::unique_ptr<const Matrix> matrix(std::int64_t rows, std::int64_t cols, DType storage,
                                       std::uint64_t seed, float scale) {
    return ops()
        .pack({Guarded::of(random16(rows * cols, seed, scale), {rows, cols}).view(), {}}, storage)
        .value();
  }
  std::vector<std::uint32_t> bits(const Guarded& t) {
    EXPECT_TRUE(stream().synchronize().ok());
    return row_bits(t, 0, t.view().shape[0]);
  }
  void expect_same(const Guarded& actual, const Guarded& expected, double tolerance,
                   const std::string& what) {
    ASSERT_TRUE(stream().synchronize().ok());
    expect_close(actual, widened(expected.floats()), tolerance, what);
  }
};

TEST_P(Fused, ProductsThatAddToOneTensor) {
  struct Case {
    std::int64_t rows, outputs, first, second;
  };
  for (const Case c : {Case{1, 40, 64, 256}, Case{3, 17, 96, 64}, Case{8, 64, 2048, 1024},
                       Case{9, 130, 32, 4096}, Case{16, 32, 160, 96}, Case{30, 64, 64, 128},
                       Case{13, 20, 2112, 4160}, Case{50, 40, 128, 320}}) {
    for (const DType storage : {DType::kBf16, DType::kF8E4M3, DType::kInt4}) {
      const auto w1 = matrix(c.outputs, c.first, storage, 11, 0.2f),
                 w2 = matrix(c.outputs, c.second, storage, 12, 0.2f);
      // Of more rows a product alone may take x in 8 bits as well.
      const auto input = [&](std::int64_t width, std::uint64_t seed) {
        const Floats x = storage == DType::kF8E4M3 ? small_numbers(c.rows, width, seed)
                                                   : random16(c.rows * width, seed);
        return tensor(x, {c.rows, width});
      };
      const Guarded x1 = input(c.first, 13), x2 = input(c.second, 14);
      const Guarded b1 = Guarded::of(random_floats(c.outputs, 15), {c.outputs});
      const Guarded b2 = Guarded::of(random_floats(c.outputs, 16), {c.outputs});
      const Floats before = random16(c.rows * c.outputs, 17);
      const auto run = [&](bool fused) {
        const Guarded y = tensor(before, {c.rows, c.outputs});
        const std::array products = {
            LinearArgs{x1.view(), w1.get(), b1.view(), Activation::kNone, y.view(), y.view()},
            LinearArgs{x2.view(), w2.get(), b2.view(), Activation::kNone, y.view(), y.view()}};
        if (fused) {
          ops().add_linears(stream(), products);
        } else {
          ops().Ops::add_linears(stream(), products);
        }
        return y;
      };
      expect_same(run(true), run(false), kRounded,
                  std::to_string(c.rows) + " rows, depths " + std::to_string(c.first) + " and " +
                      std::to_string(c.second) + " " + std::string(dtype_name(storage)));
    }
  }
}

// A pool, and sequences in it whose last position is new.
struct Sequences {
  HeadLayout heads;
  Ints contexts, query_start, positions, slots, table;
  std::int64_t max_pages = 0, num_pages = 0;

  Sequences(HeadLayout layout, Ints context_lengths)
      : heads(layout), contexts(std::move(context_lengths)), query_start{0} {
    const std::int32_t page = heads.page_size;
    for (const std::int32_t context : contexts) {
      query_start.push_back(query_start.back() + 1);
      positions.push_back(context - 1);
      max_pages = std::max<std::int64_t>(max_pages, (context + page - 1) / page);
    }
    const auto sequences = static_cast<std::int32_t>(contexts.size());
    for (std::int32_t s = 0; s < sequences; ++s) {
      // Pages of one sequence are not neighbours.
      for (std::int32_t p = 0; p < max_pages; ++p) table.push_back(p * sequences + s);
      const std::int32_t last = contexts[static_cast<std::size_t>(s)] - 1;
      slots.push_back((last / page * sequences + s) * page + last % page);
    }
    num_pages = max_pages * sequences;
  }
  std::int64_t rows() const { return static_cast<std::int64_t>(contexts.size()); }
  std::int64_t width() const {
    return std::int64_t{heads.num_heads + 2 * heads.num_kv_heads} * heads.head_dim;
  }
  Shape pool() const {
    return {num_pages, heads.num_kv_heads, std::int64_t{heads.page_size} * heads.head_dim};
  }
  AttentionBatch batch(const Ints& prefixes) const {
    return {query_start, contexts, prefixes, table, max_pages};
  }
};

TEST_P(Fused, AttentionFromThePackedProjectionOn) {
  struct Case {
    HeadLayout heads;
    Ints contexts;
    bool tau;
    int rotary;
    DType storage = DType::kBf16;
    DType pages = DType::kBf16;
  };
  Ints many;
  for (std::int32_t i = 0; i < 20; ++i) many.push_back(1 + 13 * i);
  for (const Case& c :
       {Case{{4, 4, 64, 16}, {1}, false, 32}, Case{{4, 4, 64, 16}, {40}, true, 32},
        Case{{4, 2, 32, 16}, {200, 1, 17}, false, 16},
        Case{{2, 2, 64, 16}, {775, 33}, true, 32, DType::kF8E4M3},
        Case{{6, 2, 128, 8}, {65}, false, 64}, Case{{8, 8, 32, 16}, many, true, 32},
        Case{{1, 1, 256, 16}, {129, 16}, false, 64},
        Case{{4, 4, 64, 16}, {1}, false, 32, DType::kBf16, DType::kI8},
        Case{{8, 2, 64, 16}, {300, 33}, false, 32, DType::kBf16, DType::kF8E4M3},
        Case{{4, 4, 64, 8}, {90, 7}, true, 32, DType::kBf16, DType::kF8E4M3},
        Case{{8, 8, 32, 16}, many, true, 16, DType::kBf16, DType::kI8},
        Case{{2, 2, 128, 16}, {70}, true, 64, DType::kBf16, DType::kI8},
        Case{{1, 1, 256, 16}, {129, 16}, false, 64, DType::kBf16, DType::kF8E4M3}}) {
    Sequences s(c.heads, c.contexts);
    if (s.rows() > 1) s.slots[1] = -1;  // in its page already
    const Ints prefixes(c.contexts.size(), 0);
    const std::int64_t rows = s.rows(), width = s.width();
    const std::int64_t out_width = std::int64_t{c.heads.num_heads} * c.heads.head_dim;
    const Floats qkv = random16(rows * width, 21, 2);
    const Guarded rope = Guarded::of(random_floats(800 * c.rotary, 24), {800, c.rotary / 2, 2});
    const Guarded positions = Guarded::of(s.positions, {rows}),
                  slots = Guarded::of(s.slots, {rows});
    const Guarded scale = Guarded::of(random_floats(800 * c.heads.num_heads, 25),
                                      {800, std::int64_t{c.heads.num_heads}});
    const auto tau = matrix(2 * std::int64_t{c.heads.num_heads}, width, c.storage, 26, 0.1f);
    struct Results {
      KvPool pool;
      Guarded out;
    };
    const DType page_type = is_coded(c.pages) ? c.pages : activations();
    const auto run = [&](bool fused) {
      const Results r{KvPool(page_type, c.heads, s.num_pages),
                      Guarded(activations(), {rows, out_width})};
      r.pool.fill(22);
      const Guarded packed = tensor(qkv, {rows, width});
      const Guarded input = tensor(random16(rows * width, 23), {rows, width});
      const Guarded factors(activations(), {rows, 2 * std::int64_t{c.heads.num_heads}});
      CachedAttentionArgs args{.qkv = packed.view(),
                               .rope = rope.view(),
                               .positions = positions.view(),
                               .slots = slots.view(),
                               .heads = c.heads,
                               .pages = r.pool.view(),
                               .batch = s.batch(prefixes),
                               .out = r.out.view()};
      if (c.tau) {
        args.tau = {tau.get(), scale.view(), input.view(), factors.view()};
      }
      if (fused) {
        ops().cached_attention(stream(), args);
      } else {
        ops().Ops::cached_attention(stream(), args);
      }
      EXPECT_TRUE(stream().synchronize().ok());
      return r;
    };
    const Results expected = run(false), actual = run(true);
    const std::string what = std::to_string(rows) + " rows, heads of " +
                             std::to_string(c.heads.head_dim) + (c.tau ? ", tau" : "") +
                             ", pages of " + std::string(dtype_name(page_type));
    const auto expect_same_pages = [&](Guarded KvPool::*codes, Guarded KvPool::*scales,
                                       double tolerance, const std::string& which) {
      const auto values = [&](const Results& r) {
        const Floats all = KvPool::values(r.pool.*codes, r.pool.*scales, c.heads);
        return Guarded::of(all, s.pool());
      };
      expect_same(values(actual), values(expected), tolerance, what + which);
    };
    // Sums of tau's product come in another order, and what is rounded so may have the next code.
    const double coded = page_type == DType::kI8 ? 1.0 / 127 : 32.0 / 448;
    const double turned = is_coded(page_type) ? kRounded + coded : kRounded;
    expect_same_pages(&KvPool::k, &KvPool::k_scale, Tolerance::kExact, ": keys");
    expect_same_pages(&KvPool::v, &KvPool::v_scale, c.tau ? turned : Tolerance::kExact, ": values");
    actual.pool.check_guards();
    expect_same(actual.out, expected.out, c.tau ? 2 * kAttended : kAttended, what);
  }
}

TEST_P(Fused, ExpertsFromTheRouterOn) {
  struct Case {
    std::int64_t rows, dim, inner, experts, k;
  };
  for (const Case c : {Case{1, 64, 32, 9, 3}, Case{1, 256, 64, 64, 8}, Case{1, 96, 64, 5, 5},
                       Case{4, 64, 32, 9, 3}, Case{1, 160, 96, 5, 2}, Case{1, 2048, 1024, 3, 2},
                       Case{2, 256, 64, 64, 8}, Case{7, 160, 96, 40, 1}, Case{8, 512, 128, 64, 8},
                       Case{8, 64, 32, 2, 2}, Case{9, 128, 32, 33, 7}, Case{16, 96, 64, 64, 8},
                       Case{17, 64, 32, 9, 3}, Case{3, 64, 32, 70, 4}, Case{3, 64, 32, 20, 9},
                       Case{12, 2048, 32, 4, 2}, Case{10, 2560, 32, 3, 2}}) {
    for (const DType storage : {DType::kBf16, DType::kF8E4M3, DType::kInt4}) {
      std::vector<std::unique_ptr<const Matrix>> up, down;
      for (std::int64_t e = 0; e < c.experts; ++e) {
        const auto seed = static_cast<std::uint64_t>(e);
        up.push_back(matrix(2 * c.inner, c.dim, storage, 100 + seed, 0.2f));
        down.push_back(matrix(c.dim, c.inner, storage, 300 + seed, 0.2f));
      }
      const auto proj = matrix(c.dim, c.dim, storage, 31, 0.2f);
      const Guarded attended = tensor(random16(c.rows * c.dim, 32), {c.rows, c.dim});
      const Guarded bias = Guarded::of(random_floats(c.dim, 33), {c.dim});
      const Guarded x = tensor(random16(c.rows * c.dim, 34), {c.rows, c.dim});
      Floats logits = random_floats(c.rows * c.experts, 35, 3);
      logits[1] = logits[2];  // the lower index first
      const Guarded router = Guarded::of(logits, {c.rows, c.experts});
      const Floats before = random16(c.rows * c.dim, 36);
      const auto run = [&](bool fused, bool with_product) {
        const Guarded y = tensor(before, {c.rows, c.dim});
        const Guarded ids(DType::kI32, {c.rows, c.k}), weights(DType::kF32, {c.rows, c.k});
        const LinearArgs product{attended.view(),   proj.get(), bias.view(),
                                 Activation::kNone, y.view(),   y.view()};
        const RoutedExpertsArgs args{.x = x.view(),
                                     .router = router.view(),
                                     .experts = ids.view(),
                                     .weights = weights.view(),
                                     .up = up,
                                     .down = down,
                                     .beside = with_product ? &product : nullptr,
                                     .y = y.view()};
        if (fused) {
          ops().routed_experts(stream(), args);
        } else {
          ops().Ops::routed_experts(stream(), args);
        }
        EXPECT_TRUE(stream().synchronize().ok());
        return y;
      };
      for (const bool with_product : {true, false}) {
        expect_same(run(true, with_product), run(false, with_product), kRounded,
                    std::to_string(c.rows) + " rows of " + std::to_string(c.dim) + ", " +
                        std::to_string(c.k) + " of " + std::to_string(c.experts) + " " +
                        std::string(dtype_name(storage)));
      }
    }
  }
}

// A device may begin with an operation while those in front of it run. What comes out of decoded
// layers must be the same to the bit as when each operation waits for the one before.
TEST_P(Fused, DecodedLayersDoNotOvertakeOneAnother) {
  const HeadLayout heads{8, 8, 64, 16};
  const std::int64_t dim = 512, inner = 2048, expert_inner = 256, experts = 16, k = 4;
  const int layers = GetParam().device == "cuda" ? 12 : 2;
  struct Layer {
    std::unique_ptr<const Matrix> qkv, proj, fc1, fc2, router, tau;
    std::vector<std::unique_ptr<const Matrix>> up, down;
  };
  struct Case {
    std::int32_t rows;
    DType storage = DType::kBf16;
  };
  std::vector<Case> cases = {{1}, {2}, {4}, {12}};
  if (GetParam().device == "cuda") {
    cases.insert(cases.end(),
                 {{1, DType::kInt4}, {12, DType::kF8E4M3}, {12, DType::kInt4}, {40, DType::kInt4}});
  }
  for (const Case& c : cases) {
    const std::int32_t rows = c.rows;
    const DType storage = c.storage;
    const Sequences s(heads, Ints(static_cast<std::size_t>(rows), 300));
    const Ints prefixes(s.contexts.size(), 0);
    const auto make = [&](int index, bool routed) {
      const auto seed = static_cast<std::uint64_t>(1000 * index);
      const auto of = [&](std::int64_t m, std::int64_t n, std::uint64_t number) {
        return matrix(m, n, storage, seed + number, 0.06f);
      };
      Layer layer{of(3 * dim, dim, 1), of(dim, dim, 2), nullptr, nullptr, nullptr, nullptr, {}, {}};
      if (routed) {
        layer.router = of(experts, dim, 5);
        layer.tau = of(16, 3 * dim, 6);
        for (std::uint64_t e = 0; e < static_cast<std::uint64_t>(experts); ++e) {
          layer.up.push_back(of(2 * expert_inner, dim, 10 + e));
          layer.down.push_back(of(dim, expert_inner, 50 + e));
        }
      } else {
        layer.fc1 = of(inner, dim, 7);
        layer.fc2 = of(dim, inner, 8);
      }
      return layer;
    };
    for (const bool routed : {false, true}) {
      std::vector<Layer> model;
      for (int i = 0; i < layers; ++i) model.push_back(make(i, routed));
      // The pages of each layer, and what they are in the beginning.
      const auto run = [&](bool waits, const std::vector<KvPool>& pools, const KvPool& full) {
        for (const KvPool& pool : pools) pool.copy(full);
        const Guarded x = tensor(random16(rows * dim, 41), {rows, dim});
        const Guarded normed(activations(), {rows, dim}), qkv(activations(), {rows, 3 * dim});
        const Guarded mlp(activations(), {rows, inner}), out(activations(), {rows, dim});
        const Guarded router(DType::kF32, {rows, experts}), input(activations(), {rows, 3 * dim});
        const Guarded factors(activations(), {rows, 16}), ids(DType::kI32, {rows, k});
        const Guarded counts(DType::kF32, {rows, k});
        const Guarded weight = Guarded::of(Floats(dim, 1), {dim}),
                      bias = Guarded::of(Floats(dim, 0), {dim});
        const Guarded rope = Guarded::of(random_floats(300 * 32, 42), {300, 16, 2});
        const Guarded scale = Guarded::of(random_floats(300 * 8, 43), {300, 8});
        const Guarded positions = Guarded::of(s.positions, {rows}),
                      slots = Guarded::of(s.slots, {rows});
        const auto pause = [&] {
          if (waits) {
            EXPECT_TRUE(stream().synchronize().ok());
          }
        };
        EXPECT_TRUE(stream().synchronize().ok());
        for (std::size_t number = 0; number < model.size(); ++number) {
          const Layer& layer = model[number];
          const Matrix* second = routed ? layer.router.get() : layer.fc1.get();
          ops().layer_norm(stream(), x.view(), weight.view(), bias.view(), 1e-5f, normed.view());
          pause();
          ops().linears(stream(),
                        std::array{LinearArgs{.x = normed.view(),
                                              .weight = layer.qkv.get(),
                                              .y = qkv.view(),
                                              .activated = routed ? input.view() : TensorView{},
                                              .activated_by = Activation::kGeluTanh},
                                   LinearArgs{.x = normed.view(),
                                              .weight = second,
                                              .activation = routed ? Activation::kNone
                                                                   : Activation::kGeluTanh,
                                              .y = routed ? router.view() : mlp.view()}});
          pause();
          TauArgs tau;
          if (routed) {
            tau = {layer.tau.get(), scale.view(), input.view(), factors.view()};
          }
          ops().cached_attention(stream(), {.qkv = qkv.view(),
                                            .tau = tau,
                                            .rope = rope.view(),
                                            .positions = positions.view(),
                                            .slots = slots.view(),
                                            .heads = heads,
                                            .pages = pools[number].view(),
                                            .batch = s.batch(prefixes),
                                            .out = out.view()});
          pause();
          const LinearArgs proj{
              .x = out.view(), .weight = layer.proj.get(), .add = x.view(), .y = x.view()};
          if (routed) {
            ops().routed_experts(stream(), {.x = normed.view(),
                                            .router = router.view(),
                                            .experts = ids.view(),
                                            .weights = counts.view(),
                                            .up = layer.up,
                                            .down = layer.down,
                                            .beside = &proj,
                                            .y = x.view()});
          } else {
            ops().add_linears(stream(), std::array{proj, LinearArgs{.x = mlp.view(),
                                                                    .weight = layer.fc2.get(),
                                                                    .add = x.view(),
                                                                    .y = x.view()}});
          }
          pause();
        }
        EXPECT_TRUE(stream().synchronize().ok());
        return x;
      };
      for (const DType pages : {activations(), routed ? DType::kI8 : DType::kF8E4M3}) {
        std::vector<KvPool> pools;
        for (int i = 0; i < layers; ++i) pools.emplace_back(pages, heads, s.num_pages);
        const KvPool full(pages, heads, s.num_pages);
        full.fill(44);
        const Guarded expected = run(true, pools, full);
        for (const float value : expected.floats()) ASSERT_TRUE(std::isfinite(value));
        for (int i = 0; i < (GetParam().device == "cuda" ? 20 : 1); ++i) {
          ASSERT_EQ(bits(run(false, pools, full)), bits(expected))
              << rows << " rows, " << dtype_name(storage) << ", pages of " << dtype_name(pages)
              << ", run " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, Fused, testing::ValuesIn(gpu_targets()),
                         [](const auto& test) { return test.param.name(); });

}  // namespace
}  // namespace fovea::conformance
