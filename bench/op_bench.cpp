// Products and attention of the best backend on the shapes of the real models. Where oneDNN is
// installed every product and the picture encoder's attention also run there, turn by turn, so that
// `ratio` compares like with like on a machine that others use too; each figure is the best of its
// runs.

#include <algorithm>
#include <benchmark/benchmark.h>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <time.h>
#include <vector>

#include "backend/buffer.h"
#include "backend/ops.h"
#include "backend/registry.h"
#include "base/thread_pool.h"
#if FOVEA_BENCH_ONEDNN
#include "onednn_attention.h"
#include "onednn_product.h"
#endif

namespace fovea {
namespace {

// Wall time, or with --clock=cpu the processor time of all threads: on a machine that others keep
// busy, that of one thread (--threads=1, OMP_NUM_THREADS=1) still says what the code costs.
clockid_t g_clock = CLOCK_MONOTONIC;

double seconds(const std::function<void()>& run) {
  const auto now = [] {
    timespec time{};
    ::clock_gettime(g_clock, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  };
  const double begin = now();
  run();
  return now() - begin;
}

// The device under test, made once by main.
struct Bench {
  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream;

  Tensor random(Shape shape) {
    Tensor tensor = Tensor::create(*device, DType::kF32, shape).value();
    std::uint32_t state = 1;
    float* out = tensor.view().as<float>();
    for (std::int64_t i = 0; i < shape.num_elements(); ++i) {
      state = state * 1664525u + 1013904223u;
      out[i] = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
    }
    return tensor;
  }

  std::unique_ptr<const Matrix> pack(std::int64_t rows, std::int64_t cols, DType storage) {
    const Tensor source = random({rows, cols});
    return device->ops().pack({source.view(), {}}, storage).value();
  }
};

// y [m, n] = x [m, k] . w [n, k]^T. Small products take a new weight each time, as layers do, so
// that none stays in a cache.
void run_product(benchmark::State& state, Bench& bench, std::int64_t m, std::int64_t n,
                 std::int64_t k, DType storage) {
  const std::size_t copies = m <= 16 ? 8 : 1;
  const Tensor x = bench.random({m, k});
  const Tensor y = Tensor::create(*bench.device, DType::kF32, {m, n}).value();
  std::vector<std::unique_ptr<const Matrix>> weights;
  for (std::size_t i = 0; i < copies; ++i) weights.push_back(bench.pack(n, k, storage));
#if FOVEA_BENCH_ONEDNN
  OneDnnProduct theirs(m, n, k, storage == DType::kBf16, copies);
#endif
  double best = 1e9;
  double their_best = 1e9;
  std::size_t turn = 0;
  for (auto _ : state) {
    const Matrix* weight = weights[turn % copies].get();
    const double ours = seconds([&] {
      bench.device->ops().linear(*bench.stream, {.x = x.view(),
                                                 .weight = weight,
                                                 .bias = {},
                                                 .activation = Activation::kNone,
                                                 .add = {},
                                                 .y = y.view()});
    });
    state.SetIterationTime(ours);
    best = std::min(best, ours);
#if FOVEA_BENCH_ONEDNN
    if (theirs.usable()) {
      their_best = std::min(their_best, seconds([&] { theirs.run(turn % copies); }));
      std::this_thread::sleep_for(std::chrono::milliseconds(3));  // their threads spin for a while
    }
#endif
    ++turn;
  }
  const double work = 2.0 * static_cast<double>(m * n) * static_cast<double>(k);
  const double bytes =
      static_cast<double>(n * k) *
      (storage == DType::kInt4 ? 4.5 / 8 : static_cast<double>(dtype_size(storage)));
  if (m <= 16) state.counters["GB/s"] = bytes / best * 1e-9;
  state.counters["GFLOP/s"] = work / best * 1e-9;
  if (their_best < 1e9) {
    state.counters["onednn"] = work / their_best * 1e-9;
    state.counters["ratio"] = their_best / best;
  }
}

// Packing a bf16 weight [8192, 2048] for bf16 panels: what loading a checkpoint costs.
void run_pack(benchmark::State& state, Bench& bench) {
  const Tensor source = Tensor::create(*bench.device, DType::kBf16, {8192, 2048}).value();
  std::memset(source.view().data, 0x3c, source.size_bytes());
  double best = 1e9;
  for (auto _ : state) {
    const double time = seconds([&] {
      benchmark::DoNotOptimize(bench.device->ops().pack({source.view(), {}}, DType::kBf16));
    });
    state.SetIterationTime(time);
    best = std::min(best, time);
  }
  state.counters["GB/s"] = static_cast<double>(source.size_bytes()) / best * 1e-9;
}

// The yardstick of decoding: reading and writing 256 MiB on all threads.
void run_copy(benchmark::State& state, Bench& bench, ThreadPool& pool) {
  constexpr std::int64_t kPieces = 64;
  constexpr std::size_t kPiece = std::size_t{4} << 20;
  const Buffer from = Buffer::create(*bench.device, kPieces * kPiece).value();
  const Buffer to = Buffer::create(*bench.device, kPieces * kPiece).value();
  std::memset(from.data(), 1, from.size_bytes());
  double best = 1e9;
  for (auto _ : state) {
    const double time = seconds([&] {
      pool.parallel_for(kPieces, [&](std::int64_t piece, int) {
        const auto at = static_cast<std::size_t>(piece) * kPiece;
        std::memcpy(to.data() + at, from.data() + at, kPiece);
      });
    });
    state.SetIterationTime(time);
    best = std::min(best, time);
  }
  state.counters["GB/s"] = 2.0 * static_cast<double>(from.size_bytes()) / best * 1e-9;
}

void run_vision_attention(benchmark::State& state, Bench& bench, std::int64_t crops) {
  constexpr std::int64_t kTokens = 729;
  constexpr std::int64_t kDim = 16 * 72;
  const Tensor qkv = bench.random({crops * kTokens, 3 * kDim});
  const Tensor out = Tensor::create(*bench.device, DType::kF32, {crops * kTokens, kDim}).value();
#if FOVEA_BENCH_ONEDNN
  OneDnnAttention theirs(16, kTokens, 72);
#endif
  double best = 1e9;
  double their_best = 1e9;
  for (auto _ : state) {
    const double time = seconds([&] {
      bench.device->ops().self_attention(*bench.stream, qkv.view(), kTokens, 16, out.view());
    });
    state.SetIterationTime(time);
    best = std::min(best, time);
#if FOVEA_BENCH_ONEDNN
    if (theirs.usable()) {
      their_best = std::min(their_best, seconds([&] {
                              for (std::int64_t crop = 0; crop < crops; ++crop) theirs.run();
                            }));
      std::this_thread::sleep_for(std::chrono::milliseconds(3));  // their threads spin for a while
    }
#endif
  }
  const double work = 4.0 * kTokens * kTokens * kDim * static_cast<double>(crops);
  state.counters["GFLOP/s"] = work / best * 1e-9;
  if (their_best < 1e9) {
    state.counters["onednn"] = work / their_best * 1e-9;
    state.counters["ratio"] = their_best / best;
  }
}

// `rows` new positions of one sequence at the end of a context; 32 heads of 64, pages of 16.
void run_text_attention(benchmark::State& state, Bench& bench, std::int32_t rows,
                        std::int32_t context, DType cache) {
  const HeadLayout heads{32, 32, 64, 16};
  const std::int32_t num_pages = (context + 15) / 16;
  const Shape pool{num_pages, 32, 16 * 64};
  const Tensor k = Tensor::create(*bench.device, cache, pool).value();
  const Tensor v = Tensor::create(*bench.device, cache, pool).value();
  std::memset(k.view().data, 0, k.size_bytes());
  std::memset(v.view().data, 0, v.size_bytes());
  const Tensor qkv = bench.random({rows, 3 * 2048});
  const Tensor out = Tensor::create(*bench.device, DType::kF32, {rows, 2048}).value();
  std::vector<std::int32_t> table;
  for (std::int32_t page = 0; page < num_pages; ++page) table.push_back(page);
  const std::vector<std::int32_t> starts = {0, rows};
  const std::vector<std::int32_t> contexts = {context};
  const std::vector<std::int32_t> prefixes = {730};
  double best = 1e9;
  for (auto _ : state) {
    const double time = seconds([&] {
      bench.device->ops().paged_attention(*bench.stream, qkv.view(), {k.view(), v.view()}, heads,
                                          {.query_start = starts,
                                           .context_len = contexts,
                                           .prefix_len = prefixes,
                                           .page_table = table,
                                           .max_pages = num_pages},
                                          out.view());
    });
    state.SetIterationTime(time);
    best = std::min(best, time);
  }
  if (rows == 1) {
    const double bytes = 2.0 * 2048 * context * static_cast<double>(dtype_size(cache));
    state.counters["GB/s"] = bytes / best * 1e-9;
  } else {
    double pairs = 730.0 * 730.0;
    for (std::int32_t i = 730; i < rows; ++i) pairs += i + 1;
    state.counters["GFLOP/s"] = 4.0 * 2048 * pairs / best * 1e-9;
  }
}

void register_all(Bench& bench, ThreadPool& pool) {
  const auto add = [](const std::string& name, std::function<void(benchmark::State&)> run) {
    benchmark::RegisterBenchmark(name.c_str(), std::move(run))
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond)
        ->MinTime(0.5);
  };
  add("copy", [&](benchmark::State& state) { run_copy(state, bench, pool); });
  add("pack", [&](benchmark::State& state) { run_pack(state, bench); });
  struct Product {
    std::int64_t m, n, k;
  };
  for (const DType storage : {DType::kF32, DType::kBf16, DType::kF8E4M3, DType::kInt4}) {
    for (const Product p :
         {Product{729, 1152, 1152}, Product{729, 4304, 1152}, Product{729, 1152, 4304},
          Product{729, 3456, 1152}, Product{730, 8192, 2048}, Product{8, 8192, 2048},
          Product{1, 8192, 2048}, Product{1, 2048, 8192}}) {
      add("product/" + std::string(dtype_name(storage)) + "/" + std::to_string(p.m) + "x" +
              std::to_string(p.n) + "x" + std::to_string(p.k),
          [&bench, p, storage](benchmark::State& state) {
            run_product(state, bench, p.m, p.n, p.k, storage);
          });
    }
  }
  for (const std::int64_t crops : {1, 13}) {
    add("vision_attention/" + std::to_string(crops),
        [&bench, crops](benchmark::State& state) { run_vision_attention(state, bench, crops); });
  }
  for (const DType cache : {DType::kF32, DType::kBf16}) {
    const std::string name(dtype_name(cache));
    add("prefill_attention/" + name, [&bench, cache](benchmark::State& state) {
      run_text_attention(state, bench, 775, 775, cache);
    });
    add("decode_attention/" + name, [&bench, cache](benchmark::State& state) {
      run_text_attention(state, bench, 1, 800, cache);
    });
  }
}

}  // namespace
}  // namespace fovea

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  fovea::DeviceOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg.starts_with("--isa=")) options.cpu_isa = arg.substr(6);
    if (arg == "--clock=cpu") fovea::g_clock = CLOCK_PROCESS_CPUTIME_ID;
    if (arg.starts_with("--threads=")) options.num_threads = std::stoi(arg.substr(10));
  }
  auto device = fovea::create_device("auto", options);
  if (!device.ok()) {
    std::fprintf(stderr, "%s\n", device.error().message.c_str());
    return 1;
  }
  std::printf("%s\n", (*device)->description().c_str());
  fovea::Bench bench;
  bench.device = std::move(device).value();
  bench.stream = bench.device->make_stream().value();
  fovea::ThreadPool pool(options.num_threads > 0 ? options.num_threads
                                                 : fovea::usable_processors());
  fovea::register_all(bench, pool);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
