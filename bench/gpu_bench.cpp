// Operations of a GPU at the shapes of Moondream 2: time of each, beside what the memory or the
// arithmetic of it comes to. Times are those of many calls in a row, so that launches overlap.
//
//   gpu_bench [device [part...]]
//
// Parts: copy vision prefill decode layer step experts routed attention sampling; fp8, int4: with
// weights in 8 and in 4 bits as well as in bf16; kv8: with keys and values in 8 bits as well as in
// bf16. All of them when none is named.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fmt/format.h>
#include <functional>
#include <string>
#include <vector>

#include "backend/buffer.h"
#include "backend/ops.h"
#include "backend/registry.h"
#include "backend/stream.h"
#include "tensor/half.h"
#ifdef FOVEA_CUDA
#include "cuda_copy.h"
#endif

namespace {

using namespace fovea;

constexpr int kHeadDim = 64;
constexpr int kHeads = 32;
constexpr int kPageSize = 16;
constexpr std::int64_t kVocabulary = 51200;
constexpr HeadLayout kLayout{kHeads, kHeads, kHeadDim, kPageSize};
// Positions of a question about a picture, and the pages that they take.
constexpr int kContext = 775, kPages = (kContext + kPageSize - 1) / kPageSize;

template <class T>
T must(Result<T> result) {
  if (!result.ok()) {
    fmt::print(stderr, "gpu_bench: {}\n", result.error().message);
    std::exit(1);
  }
  return std::move(result).value();
}

class Bench {
 public:
  explicit Bench(const std::string& name)
      : device_(must(create_device(name, {}))), stream_(must(device_->make_stream())) {
    fmt::print("{}: {}\n", device_->name(), device_->description());
  }

  Ops& ops() { return device_->ops(); }
  Stream& stream() { return *stream_; }

  Tensor tensor(DType dtype, Shape shape) { return must(Tensor::create(*device_, dtype, shape)); }
  Tensor random(DType dtype, Shape shape, float scale = 1) {
    Tensor made = tensor(dtype, shape);
    const auto count = static_cast<std::size_t>(shape.num_elements());
    std::vector<float> values(count);
    std::vector<std::uint16_t> bits;
    fill(values, [&] { return scale * next(); });
    if (dtype == DType::kBf16) {
      for (const float value : values) bits.push_back(f32_to_bf16(value));
      stream_->upload(std::as_bytes(std::span(bits)), made.view());
    } else {
      stream_->upload(std::as_bytes(std::span(values)), made.view());
    }
    wait();
    return made;
  }
  /// Uniform in [-1, 1).
  std::vector<float> numbers(std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    fill(values, [&] { return next(); });
    return values;
  }
  /// Keys and values of a layer; codes count 1 / 64.
  struct Pages {
    Tensor k, v, k_scale, v_scale;

    KvPages view() const {
      if (!is_coded(k.view().dtype)) return {k.view(), v.view()};
      return {k.view(), v.view(), k_scale.view(), v_scale.view()};
    }
    double bytes() const {
      const double scales = is_coded(k.view().dtype) ? 4.0 / kHeadDim : 0;
      return static_cast<double>(dtype_size(k.view().dtype)) + scales;
    }
  };
  Pages pages(DType type, std::int64_t num_pages) {
    const Shape pool{num_pages, kHeads, kPageSize * kHeadDim}, rows{num_pages, kHeads, kPageSize};
    if (!is_coded(type)) {
      return {random(type, pool), random(type, pool), tensor(DType::kF32, {1}),
              tensor(DType::kF32, {1})};
    }
    Pages made{tensor(type, pool), tensor(type, pool), tensor(DType::kF32, rows),
               tensor(DType::kF32, rows)};
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(pool.num_elements()));
    for (const Tensor* t : {&made.k, &made.v}) {
      fill(codes, [&] {
        const float x = 64 * next();
        return type == DType::kI8 ? static_cast<std::uint8_t>(static_cast<std::int8_t>(x))
                                  : f32_to_f8e4m3(x);
      });
      stream_->upload(std::as_bytes(std::span(codes)), t->view());
      wait();
    }
    const std::vector<float> steps(static_cast<std::size_t>(rows.num_elements()), 1.0f / 64);
    for (const Tensor* t : {&made.k_scale, &made.v_scale}) {
      stream_->upload(std::as_bytes(std::span(steps)), t->view());
      wait();
    }
    return made;
  }
  /// Logits as a model's: noise with a standard deviation of 2.5, and in each row eight words that
  /// are far more likely, from `least` to `most`. With 10 to 18 and a temperature of 0.8, top-p 0.9
  /// keeps two to five words; with 6 to 14, where the noise has its say, up to a thousand.
  Tensor model_logits(std::int64_t rows, float least, float most) {
    std::vector<float> values(static_cast<std::size_t>(rows * kVocabulary));
    fill(values, [&] {
      float sum = 0;  // of twelve uniform numbers: as good as normal, with a deviation of 2
      for (int i = 0; i < 12; ++i) sum += next();
      return 1.25f * sum;
    });
    for (std::int64_t word = 0; word < 8 * rows; ++word) {
      const auto id = static_cast<std::int64_t>((next() + 1) * 0.5f * (kVocabulary - 1));
      values[static_cast<std::size_t>(word / 8 * kVocabulary + id)] =
          least + (next() + 1) * 0.5f * (most - least);
    }
    Tensor made = tensor(DType::kF32, {rows, kVocabulary});
    stream_->upload(std::as_bytes(std::span(values)), made.view());
    wait();
    return made;
  }
  /// What matrices are stored as from now on: bf16, f8e4m3 or int4.
  void store_as(DType storage) { storage_ = storage; }
  double bytes_of_weight() const {
    return storage_ == DType::kInt4 ? 4.5 / 8 : static_cast<double>(dtype_size(storage_));
  }
  std::unique_ptr<const Matrix> matrix(std::int64_t rows, std::int64_t cols) {
    return matrix_in(storage_, rows, cols);
  }
  std::unique_ptr<const Matrix> matrix_in(DType storage, std::int64_t rows, std::int64_t cols) {
    std::vector<std::uint16_t> bits(static_cast<std::size_t>(rows * cols));
    fill(bits, [&] { return f32_to_bf16(0.05f * next()); });
    return must(ops().pack(
        {{DType::kBf16, {rows, cols}, reinterpret_cast<std::byte*>(bits.data())}, {}}, storage));
  }

  void wait() {
    const Status status = stream_->synchronize();
    if (status.ok()) return;
    fmt::print(stderr, "gpu_bench: {}\n", status.error().message);
    std::exit(1);
  }

  // Microseconds of a call: the median of a few rounds of many.
  double time(const std::function<void(int)>& call) {
    for (int i = 0; i < 5; ++i) call(i);
    wait();
    std::vector<double> rounds;
    for (int round = 0; round < 5; ++round) {
      constexpr int kCalls = 50;
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < kCalls; ++i) call(i);
      wait();
      const std::chrono::duration<double, std::micro> took =
          std::chrono::steady_clock::now() - begin;
      rounds.push_back(took.count() / kCalls);
    }
    std::sort(rounds.begin(), rounds.end());
    return rounds[rounds.size() / 2];
  }

  void report(const std::string& what, double us, double bytes, double operations) {
    fmt::print("{:60} {:9.1f} us", what, us);
    if (bytes > 0) fmt::print(" {:8.0f} GB/s", bytes / us / 1e3);
    if (operations > 0) fmt::print(" {:8.1f} TFLOP/s", operations / us / 1e6);
    fmt::print("\n");
    std::fflush(stdout);
  }

 private:
  // Random numbers, the same again after a million: making them takes longer than timing.
  template <class T, class Make>
  static void fill(std::vector<T>& values, const Make& make) {
    const std::size_t made = std::min<std::size_t>(values.size(), 1000003);
    for (std::size_t i = 0; i < made; ++i) values[i] = make();
    for (std::size_t i = made; i < values.size(); ++i) values[i] = values[i - made];
  }
  // Uniform in [-1, 1).
  float next() {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<float>(static_cast<std::int32_t>(state_ >> 32)) * 0x1p-31f;
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  DType storage_ = DType::kBf16;
  std::uint64_t state_ = 1;
};

void bench_linear(Bench& b, const std::string& what, std::int64_t m, std::int64_t n, std::int64_t k,
                  Activation activation, bool residual) {
  // Several weights in turn: one alone would stay in the cache.
  const double weight_bytes = b.bytes_of_weight() * static_cast<double>(n * k);
  const int copies = m <= 64 ? std::clamp(static_cast<int>(200e6 / weight_bytes), 1, 16) : 1;
  std::vector<std::unique_ptr<const Matrix>> weights;
  for (int i = 0; i < copies; ++i) weights.push_back(b.matrix(n, k));
  const Tensor x = b.random(DType::kBf16, {m, k}), y = b.random(DType::kBf16, {m, n});
  const Tensor bias = b.random(DType::kF32, {n});
  const double us = b.time([&](int i) {
    b.ops().linear(b.stream(), {.x = x.view(),
                                .weight = weights[static_cast<std::size_t>(i % copies)].get(),
                                .bias = bias.view(),
                                .activation = activation,
                                .add = residual ? y.view() : TensorView{},
                                .y = y.view()});
  });
  b.report(fmt::format("{} {} x {} x {}", what, m, n, k), us,
           m <= 64 ? weight_bytes + 2.0 * static_cast<double>(m * (n + k)) : 0,
           2.0 * static_cast<double>(m * n) * static_cast<double>(k));
}

// Both launches of a decoded layer's products, in chains over the weights of many layers.
void bench_layer(Bench& b) {
  constexpr std::int64_t kDim = kHeads * kHeadDim, kInner = 4 * kDim, kLayers = 16;
  struct Layer {
    std::unique_ptr<const Matrix> qkv, proj, fc1, fc2;
  };
  std::vector<Layer> layers;
  for (std::int64_t i = 0; i < kLayers; ++i) {
    layers.push_back({b.matrix(3 * kDim, kDim), b.matrix(kDim, kDim), b.matrix(kInner, kDim),
                      b.matrix(kDim, kInner)});
  }
  const Tensor bias = b.random(DType::kF32, {kInner});
  const auto report = [&](const std::string& what, std::int64_t weights, double us) {
    b.report(what, us, b.bytes_of_weight() * static_cast<double>(weights), 0);
  };
  for (const std::int64_t rows : {1, 4, 8, 16, 32, 48, 64}) {
    const Tensor x = b.random(DType::kBf16, {rows, kDim}), y = b.random(DType::kBf16, {rows, kDim});
    const Tensor wide = b.random(DType::kBf16, {rows, kInner});
    const Tensor qkv = b.tensor(DType::kBf16, {rows, 3 * kDim});
    const Tensor mlp = b.tensor(DType::kBf16, {rows, kInner});
    const auto product = [&](const Tensor& in, const Matrix& weight, const Tensor& out, bool adds) {
      return LinearArgs{.x = in.view(),
                        .weight = &weight,
                        .bias = bias.rows(weight.rows()),
                        .add = adds ? out.view() : TensorView{},
                        .y = out.view()};
    };
    const double first = b.time([&](int i) {
      const Layer& layer = layers[static_cast<std::size_t>(i % kLayers)];
      b.ops().linears(b.stream(), std::array{product(x, *layer.qkv, qkv, false),
                                             product(x, *layer.fc1, mlp, false)});
    });
    report(fmt::format("qkv and fc1 of {} rows", rows), (3 * kDim + kInner) * kDim, first);
    const double second = b.time([&](int i) {
      const Layer& layer = layers[static_cast<std::size_t>(i % kLayers)];
      b.ops().add_linears(b.stream(), std::array{product(x, *layer.proj, y, true),
                                                 product(wide, *layer.fc2, y, true)});
    });
    report(fmt::format("proj + fc2 of {} rows", rows), (kDim + kInner) * kDim, second);
  }
}

// A layer of Moondream 3's experts, 8 of 64 for each row, chosen as at random; and the same where
// all rows have an adapter of rank 16.
void bench_experts(Bench& b) {
  constexpr std::int64_t kExperts = 64, kChoices = 8, kDim = 2048, kInner = 1024;
  std::vector<std::unique_ptr<const Matrix>> up, down;
  for (std::int64_t e = 0; e < kExperts; ++e) {
    up.push_back(b.matrix(2 * kInner, kDim));
    down.push_back(b.matrix(kDim, kInner));
  }
  constexpr std::int64_t kRank = 16;
  const auto adapter = [&](std::int64_t width) {
    return b.random(DType::kBf16, {1, kExperts, kRank, width}, 0.01f);
  };
  const Tensor up_a = adapter(kDim), up_b = adapter(2 * kInner);
  const Tensor down_a = adapter(kInner), down_b = adapter(kDim);
  for (const std::int64_t rows : {1, 4, 16, 64, 775, 1024, 1550}) {
    const Tensor x = b.random(DType::kBf16, {rows, kDim}), y = b.random(DType::kBf16, {rows, kDim});
    const Tensor logits = b.random(DType::kF32, {rows, kExperts});
    const Tensor experts = b.tensor(DType::kI32, {rows, kChoices});
    const Tensor weights = b.tensor(DType::kF32, {rows, kChoices});
    b.ops().moe_route(b.stream(), logits.view(), experts.view(), weights.view());
    const double us = b.time([&](int) {
      b.ops().moe_mlp(b.stream(), x.view(), experts.view(), weights.view(), up, down, nullptr,
                      y.view());
    });
    const double pairs = static_cast<double>(rows * kChoices);
    const double used = kExperts * (1 - std::pow(1 - 1.0 / kExperts, pairs));  // on average
    b.report(fmt::format("experts of {} rows", rows), us, used * 6.0 * kInner * kDim,
             pairs * 6.0 * kInner * kDim);
    const std::vector<std::int32_t> ranks = {kRank}, slots = {0},
                                    starts = {0, static_cast<std::int32_t>(rows)};
    const MoeLora lora{
        {up_a.view(), up_b.view(), ranks}, {down_a.view(), down_b.view(), ranks}, {starts, slots}};
    b.report(fmt::format("experts of {} rows and an adapter", rows), b.time([&](int) {
      b.ops().moe_mlp(b.stream(), x.view(), experts.view(), weights.view(), up, down, &lora,
                      y.view());
    }),
             0, 0);
  }
}

void bench_vision(Bench& b) {
  for (const std::int64_t crops : {9, 13}) {
    const std::int64_t rows = crops * 729;
    bench_linear(b, "vision qkv", rows, 3456, 1152, Activation::kNone, false);
    bench_linear(b, "vision proj", rows, 1152, 1152, Activation::kNone, true);
    bench_linear(b, "vision fc1 + GELU", rows, 4304, 1152, Activation::kGeluTanh, false);
    bench_linear(b, "vision fc2", rows, 1152, 4304, Activation::kNone, true);
    const Tensor qkv = b.random(DType::kBf16, {rows, 3456});
    const Tensor out = b.tensor(DType::kBf16, {rows, 1152});
    double us =
        b.time([&](int) { b.ops().self_attention(b.stream(), qkv.view(), 729, 16, out.view()); });
    b.report(fmt::format("vision attention, {} crops", crops), us, 0,
             4.0 * static_cast<double>(crops) * 16 * 729 * 729 * 72);
    const Tensor weight = b.random(DType::kF32, {1152}), bias = b.random(DType::kF32, {1152});
    us = b.time([&](int) {
      b.ops().layer_norm(b.stream(), out.view(), weight.view(), bias.view(), 1e-5f, out.view());
    });
    b.report(fmt::format("vision layer_norm, {} crops", crops), us,
             4.0 * static_cast<double>(rows) * 1152, 0);
  }
}

void bench_text_attention(Bench& b, DType page_type) {
  constexpr std::int64_t kMost = 64;
  const Bench::Pages pages = b.pages(page_type, kMost * kPages);
  for (const std::int64_t sequences : {1, 4, 16, 64}) {
    for (const std::int64_t rows_each : {std::int64_t{1}, std::int64_t{kContext}}) {
      if (rows_each > 1 && sequences > 4) continue;
      std::vector<std::int32_t> starts = {0}, contexts, prefixes, table;
      for (std::int32_t s = 0; s < sequences; ++s) {
        starts.push_back(starts.back() + static_cast<std::int32_t>(rows_each));
        contexts.push_back(kContext);
        prefixes.push_back(730);
        for (std::int32_t p = 0; p < kPages; ++p) table.push_back(s * kPages + p);
      }
      const std::int64_t rows = starts.back();
      const Tensor qkv = b.random(DType::kBf16, {rows, 3 * kHeads * kHeadDim});
      const Tensor out = b.tensor(DType::kBf16, {rows, kHeads * kHeadDim});
      const double us = b.time([&](int) {
        b.ops().paged_attention(b.stream(), qkv.view(), pages.view(), kLayout,
                                {.query_start = starts,
                                 .context_len = contexts,
                                 .prefix_len = prefixes,
                                 .page_table = table,
                                 .max_pages = kPages},
                                out.view());
      });
      const double positions = static_cast<double>(sequences) * kContext * kHeads * kHeadDim;
      b.report(
          fmt::format("{} attention, {} x {} positions, {}", rows_each == 1 ? "decode" : "prompt",
                      sequences, kContext, dtype_name(page_type)),
          us, rows_each == 1 ? 2 * pages.bytes() * positions : 0,
          rows_each == 1 ? 0 : 4 * positions * kContext);
    }
  }
}

void bench_sampling(Bench& b) {
  const auto bench = [&](const char* which, const Tensor& logits) {
    const std::int64_t count = logits.view().shape[0];
    const Tensor ids = b.tensor(DType::kI32, {count}), logprobs = b.tensor(DType::kF32, {count});
    const Tensor top_ids = b.tensor(DType::kI32, {count, kMaxTopWords});
    const Tensor top_logprobs = b.tensor(DType::kF32, {count, kMaxTopWords});
    const std::vector<std::int32_t> suppressed = {0, 5, 900, 20000, 50256, 51000};
    const auto mode = [&](const char* what, const SamplingRow& row) {
      std::vector<SamplingRow> rows(static_cast<std::size_t>(count), row);
      for (std::size_t r = 0; r < rows.size(); ++r) rows[r].seed = r;
      const double us = b.time([&](int) {
        b.ops().sample(b.stream(),
                       {.logits = logits.view(),
                        .rows = rows,
                        .mask_ids = suppressed,
                        .ids = ids.view(),
                        .logprobs = logprobs.view(),
                        .top_ids = row.num_top > 0 ? top_ids.view() : TensorView{},
                        .top_logprobs = row.num_top > 0 ? top_logprobs.view() : TensorView{}});
      });
      b.report(fmt::format("sampling {}, {} x {}, {}", which, count, kVocabulary, what), us,
               4.0 * static_cast<double>(count) * kVocabulary, 0);
    };
    mode("greedy", {});
    mode("greedy, 5 top words", {.num_top = 5});
    mode("greedy, six words suppressed", {.suppressed_count = 6});
    mode("temperature", {.temperature = 0.8f});
    mode("temperature, top-p", {.temperature = 0.8f, .top_p = 0.9f});
    mode("temperature, top-k, top-p, min-p",
         {.temperature = 0.8f, .top_p = 0.9f, .min_p = 0.02f, .top_k = 50});
  };
  bench("uniform", b.random(DType::kF32, {64, kVocabulary}, 12));
  bench("flat", b.model_logits(64, 6, 14));
  bench("peaked", b.model_logits(64, 10, 18));
  bench("peaked", b.model_logits(1, 10, 18));
}

// Answers of one row each, at the last position of their contexts, and a layer's pages of them.
class Decoded {
 public:
  Decoded(Bench& b, DType page_type, std::int32_t rows)
      : pages(b.pages(page_type, std::int64_t{rows} * kPages)),
        positions_(b.tensor(DType::kI32, {rows})),
        slots_(b.tensor(DType::kI32, {rows})),
        contexts_(static_cast<std::size_t>(rows), kContext),
        prefixes_(static_cast<std::size_t>(rows), 730) {
    std::vector<std::int32_t> at, to;
    for (std::int32_t s = 0; s < rows; ++s) {
      starts_.push_back(s + 1);
      at.push_back(kContext - 1);
      to.push_back(s * kPages * kPageSize + kContext - 1);
      for (std::int32_t p = 0; p < kPages; ++p) table_.push_back(s * kPages + p);
    }
    b.stream().upload(std::as_bytes(std::span(at)), positions_.view());
    b.stream().upload(std::as_bytes(std::span(to)), slots_.view());
  }

  // From the packed projection on.
  CachedAttentionArgs attention(const Tensor& qkv, const Tensor& rope, const Tensor& out) const {
    return {.qkv = qkv.view(),
            .rope = rope.view(),
            .positions = positions_.view(),
            .slots = slots_.view(),
            .heads = kLayout,
            .pages = pages.view(),
            .batch = {.query_start = starts_,
                      .context_len = contexts_,
                      .prefix_len = prefixes_,
                      .page_table = table_,
                      .max_pages = kPages},
            .out = out.view()};
  }

  const Bench::Pages pages;

 private:
  const Tensor positions_, slots_;
  std::vector<std::int32_t> starts_ = {0}, contexts_, prefixes_, table_;
};

// What a decoded token takes of the device, without what the engine adds: the layers and the
// vocabulary in a row, each with weights of its own.
void bench_step(Bench& b, DType page_type) {
  constexpr int kLayers = 24;
  constexpr std::int64_t kDim = kHeads * kHeadDim, kInner = 4 * kDim;
  struct Layer {
    std::unique_ptr<const Matrix> qkv, proj, fc1, fc2;
  };
  std::vector<Layer> layers;
  for (int i = 0; i < kLayers; ++i) {
    layers.push_back({b.matrix(3 * kDim, kDim), b.matrix(kDim, kDim), b.matrix(kInner, kDim),
                      b.matrix(kDim, kInner)});
  }
  const auto lm_head = b.matrix_in(DType::kBf16, kVocabulary, kDim);
  const Tensor scale = b.random(DType::kF32, {kInner}), bias = b.random(DType::kF32, {kVocabulary});
  const Tensor rope = b.random(DType::kF32, {1024, 16, 2});
  for (const std::int32_t rows : {1, 4, 16, 32, 64}) {
    const Decoded decoded(b, page_type, rows);
    const Tensor x = b.random(DType::kBf16, {rows, kDim}),
                 normed = b.tensor(DType::kBf16, {rows, kDim});
    const Tensor qkv = b.tensor(DType::kBf16, {rows, 3 * kDim}),
                 mlp = b.tensor(DType::kBf16, {rows, kInner});
    const Tensor attended = b.tensor(DType::kBf16, {rows, kDim});
    const Tensor logits = b.tensor(DType::kF32, {rows, kVocabulary});
    const Tensor ids = b.tensor(DType::kI32, {rows}), logprobs = b.tensor(DType::kF32, {rows});
    const std::vector<SamplingRow> draws(static_cast<std::size_t>(rows));
    Ops& ops = b.ops();
    Stream& on = b.stream();
    const auto product = [&](TensorView in, const Matrix& weight, Activation activation,
                             TensorView add, TensorView out) {
      return LinearArgs{.x = in,
                        .weight = &weight,
                        .bias = bias.rows(weight.rows()),
                        .activation = activation,
                        .add = add,
                        .y = out};
    };
    const auto norm = [&] {
      ops.layer_norm(on, x.view(), scale.rows(kDim), bias.rows(kDim), 1e-5f, normed.view());
    };
    const double us = b.time([&](int) {
      for (const Layer& layer : layers) {
        norm();
        ops.linears(
            on,
            std::array{product(normed.view(), *layer.qkv, Activation::kNone, {}, qkv.view()),
                       product(normed.view(), *layer.fc1, Activation::kGeluTanh, {}, mlp.view())});
        ops.cached_attention(on, decoded.attention(qkv, rope, attended));
        ops.add_linears(
            on,
            std::array{product(attended.view(), *layer.proj, Activation::kNone, x.view(), x.view()),
                       product(mlp.view(), *layer.fc2, Activation::kNone, x.view(), x.view())});
      }
      norm();
      ops.linear(on, product(normed.view(), *lm_head, Activation::kNone, {}, logits.view()));
      ops.sample(on, {.logits = logits.view(),
                      .rows = draws,
                      .mask_ids = {},
                      .ids = ids.view(),
                      .logprobs = logprobs.view()});
    });
    const double weights =
        kDim * (b.bytes_of_weight() * kLayers * (4.0 * kDim + 2.0 * kInner) + 2.0 * kVocabulary);
    const double cache = 2 * decoded.pages.bytes() * kLayers * rows * kContext * kDim;
    b.report(fmt::format("a token of {} answers, {} layers, pages of {}", rows, kLayers,
                         dtype_name(page_type)),
             us, weights + cache, 0);
  }
}

// How many experts are among the `choices` largest logits of any row.
double num_chosen(std::vector<float> logits, std::size_t experts, std::size_t choices) {
  std::vector<bool> is_chosen(experts);
  for (std::size_t row = 0; row < logits.size(); row += experts) {
    for (std::size_t i = 0; i < choices; ++i) {
      const auto from = logits.begin() + static_cast<std::ptrdiff_t>(row);
      const auto largest = std::max_element(from, from + static_cast<std::ptrdiff_t>(experts));
      is_chosen[static_cast<std::size_t>(largest - from)] = true;
      *largest = -2;
    }
  }
  return static_cast<double>(std::count(is_chosen.begin(), is_chosen.end(), true));
}

// What a decoded token takes of the routed layers of Moondream 3, and what each of their launches
// takes in a chain of its own. Four layers' weights in turn: each row chooses 8 of 64 experts.
void bench_routed_layers(Bench& b) {
  constexpr int kLayers = 20, kOwnLayers = 4;
  constexpr std::int64_t kDim = kHeads * kHeadDim, kExperts = 64, kChoices = 8, kInner = 1024;
  struct Layer {
    std::unique_ptr<const Matrix> qkv, router, tau, proj;
    std::vector<std::unique_ptr<const Matrix>> up, down;
  };
  std::vector<Layer> layers;
  for (int i = 0; i < kOwnLayers; ++i) {
    Layer& layer = layers.emplace_back();
    layer.qkv = b.matrix(3 * kDim, kDim);
    layer.router = b.matrix_in(DType::kBf16, kExperts, kDim);
    layer.tau = b.matrix_in(DType::kBf16, 2 * kHeads, 3 * kDim);
    layer.proj = b.matrix(kDim, kDim);
    for (std::int64_t e = 0; e < kExperts; ++e) {
      layer.up.push_back(b.matrix(2 * kInner, kDim));
      layer.down.push_back(b.matrix(kDim, kInner));
    }
  }
  const Tensor scale = b.random(DType::kF32, {kDim}), bias = b.random(DType::kF32, {3 * kDim});
  const Tensor rope = b.random(DType::kF32, {1024, 16, 2});
  const Tensor position_scale = b.random(DType::kF32, {1024, kHeads});
  for (const std::int32_t rows : {1, 4, 16}) {
    const Decoded decoded(b, DType::kBf16, rows);
    const Tensor x = b.random(DType::kBf16, {rows, kDim});
    const Tensor normed = b.random(DType::kBf16, {rows, kDim});
    const Tensor qkv = b.random(DType::kBf16, {rows, 3 * kDim});
    // The router's own logits are left alone: what random weights make of x may be much alike for
    // all rows.
    const Tensor router = b.tensor(DType::kF32, {rows, kExperts});
    std::vector<float> routing = b.numbers(rows * kExperts);
    const Tensor routed = b.tensor(DType::kF32, {rows, kExperts});
    b.stream().upload(std::as_bytes(std::span(routing)), routed.view());
    const Tensor tau_input = b.random(DType::kBf16, {rows, 3 * kDim});
    const Tensor tau = b.tensor(DType::kBf16, {rows, 2 * kHeads});
    const Tensor attended = b.random(DType::kBf16, {rows, kDim});
    const Tensor experts = b.tensor(DType::kI32, {rows, kChoices});
    const Tensor weights = b.tensor(DType::kF32, {rows, kChoices});
    Ops& ops = b.ops();
    Stream& on = b.stream();
    const auto norm = [&](const Layer&) {
      ops.layer_norm(on, x.view(), scale.view(), bias.rows(kDim), 1e-5f, normed.view());
    };
    const auto first = [&](const Layer& layer) {
      ops.linears(on, std::array{LinearArgs{.x = normed.view(),
                                            .weight = layer.qkv.get(),
                                            .bias = bias.view(),
                                            .y = qkv.view(),
                                            .activated = tau_input.view(),
                                            .activated_by = Activation::kGeluTanh},
                                 LinearArgs{.x = normed.view(),
                                            .weight = layer.router.get(),
                                            .bias = bias.rows(kExperts),
                                            .y = router.view()}});
    };
    const auto attention = [&](const Layer& layer) {
      CachedAttentionArgs args = decoded.attention(qkv, rope, attended);
      args.tau = {.weight = layer.tau.get(),
                  .position_scale = position_scale.view(),
                  .input = tau_input.view(),
                  .output = tau.view()};
      ops.cached_attention(on, args);
    };
    const auto mlp = [&](const Layer& layer) {
      const LinearArgs proj{.x = attended.view(),
                            .weight = layer.proj.get(),
                            .bias = bias.rows(kDim),
                            .add = x.view(),
                            .y = x.view()};
      ops.routed_experts(on, {.x = normed.view(),
                              .router = routed.view(),
                              .experts = experts.view(),
                              .weights = weights.view(),
                              .up = layer.up,
                              .down = layer.down,
                              .lora = nullptr,
                              .beside = &proj,
                              .y = x.view()});
    };
    // `bytes` of each layer.
    const auto chain = [&](const char* what, double bytes, const auto&... launches) {
      const double us = b.time([&](int) {
        for (int i = 0; i < kLayers; ++i) {
          const Layer& layer = layers[static_cast<std::size_t>(i % kOwnLayers)];
          (launches(layer), ...);
        }
      });
      b.report(fmt::format("{} of {} rows, {} routed layers", what, rows, kLayers), us,
               kLayers * bytes, 0);
    };
    const double used = num_chosen(routing, kExperts, kChoices);
    const double expert_bytes = b.bytes_of_weight() * used * 3.0 * kInner * kDim;
    const double qkv_bytes = b.bytes_of_weight() * 3.0 * kDim * kDim + 2.0 * kExperts * kDim;
    const double proj_bytes = b.bytes_of_weight() * kDim * kDim;
    const double cache_bytes = 4.0 * rows * kContext * kDim;
    chain("norm", 0, norm);
    chain("qkv and router", qkv_bytes, first);
    chain("attention with tau", cache_bytes, attention);
    chain("experts and proj", expert_bytes + proj_bytes, mlp);
    chain("a token", qkv_bytes + cache_bytes + expert_bytes + proj_bytes, norm, first, attention,
          mlp);
  }
}

#ifdef FOVEA_CUDA
// Yardsticks: a large copy, and copies of as many bytes as the products of a decoded layer read.
void bench_copy(Bench& b) {
  constexpr double kDim = kHeads * kHeadDim;
  constexpr double kQkvAndFc1 = 7 * kDim * kDim, kProjAndFc2 = 5 * kDim * kDim;
  const auto report = [&](const std::string& what, double bytes) {
    b.report("copy, " + what, cuda_copy_us(static_cast<std::size_t>(bytes)), bytes, 0);
  };
  report("1 GiB", 1 << 30);
  for (const auto& [type, size] : {std::pair{"bf16", 2.0}, {"fp8", 1.0}, {"int4", 0.5625}}) {
    report(fmt::format("as qkv and fc1 in {}", type), size * kQkvAndFc1);
    report(fmt::format("as proj and fc2 in {}", type), size * kProjAndFc2);
  }
}
#endif

}  // namespace

int main(int argc, char** argv) {
  Bench b(argc > 1 ? argv[1] : "cuda");
  const std::vector<std::string> parts(argv + std::min(argc, 2), argv + argc);
  const auto wants = [&](const char* part) {
    return parts.empty() || std::find(parts.begin(), parts.end(), part) != parts.end();
  };
#ifdef FOVEA_CUDA
  if (wants("copy")) bench_copy(b);
#endif
  if (wants("sampling")) bench_sampling(b);
  std::vector<DType> page_types = {DType::kBf16};
  if (wants("kv8")) page_types.insert(page_types.end(), {DType::kI8, DType::kF8E4M3});
  for (const DType storage : {DType::kBf16, DType::kF8E4M3, DType::kInt4}) {
    if (storage == DType::kF8E4M3 && !wants("fp8")) continue;
    if (storage == DType::kInt4 && !wants("int4")) continue;
    fmt::print("weights in {}\n", dtype_name(storage));
    b.store_as(storage);
    if (wants("step")) {
      for (const DType type : page_types) bench_step(b, type);
    }
    if (wants("decode")) {
      for (const std::int64_t rows : {1, 4, 16, 32, 64}) {
        bench_linear(b, "decode qkv", rows, 6144, 2048, Activation::kNone, false);
        bench_linear(b, "decode proj", rows, 2048, 2048, Activation::kNone, true);
        bench_linear(b, "decode fc1 + GELU", rows, 8192, 2048, Activation::kGeluTanh, false);
        bench_linear(b, "decode fc2", rows, 2048, 8192, Activation::kNone, true);
        bench_linear(b, "decode lm_head", rows, kVocabulary, 2048, Activation::kNone, false);
      }
    }
    if (wants("layer")) bench_layer(b);
    if (wants("experts")) bench_experts(b);
    if (wants("routed")) bench_routed_layers(b);
    if (wants("vision")) bench_vision(b);
    if (wants("prefill")) {
      bench_linear(b, "prefill qkv", 775, 6144, 2048, Activation::kNone, false);
      bench_linear(b, "prefill proj", 775, 2048, 2048, Activation::kNone, true);
      bench_linear(b, "prefill fc1 + GELU", 775, 8192, 2048, Activation::kGeluTanh, false);
      bench_linear(b, "prefill fc2", 775, 2048, 8192, Activation::kNone, true);
    }
  }
  if (wants("attention")) {
    for (const DType type : page_types) bench_text_attention(b, type);
  }
  return 0;
}
