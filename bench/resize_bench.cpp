// resize_bench PICTURE... [Google Benchmark flags]: decoding and cropping of the given pictures on
// one thread. bench/resize_beside_pillow.py runs this beside Pillow on the same files.
#include <benchmark/benchmark.h>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/thread_pool.h"
#include "image/crops.h"
#include "image/decode.h"

namespace {

void decode(benchmark::State& state, const fovea::MappedFile& file) {
  for (auto _ : state) {
    auto image = fovea::decode_image(file.bytes(), {});
    benchmark::DoNotOptimize(image->rgb.data());
  }
}

void crop(benchmark::State& state, const fovea::MappedFile& file) {
  fovea::ThreadPool pool(1);
  const auto image = fovea::decode_image(file.bytes(), {});
  for (auto _ : state) {
    auto crops = fovea::make_crops(*image, {}, pool);
    benchmark::DoNotOptimize(crops->pixels.data());
  }
}

void bytes_to_crops(benchmark::State& state, const fovea::MappedFile& file) {
  fovea::ThreadPool pool(1);
  for (auto _ : state) {
    const auto image = fovea::decode_image(file.bytes(), {});
    auto crops = fovea::make_crops(*image, {}, pool);
    benchmark::DoNotOptimize(crops->pixels.data());
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s PICTURE... [--benchmark_...]\n", argv[0]);
    return 2;
  }
  std::vector<std::unique_ptr<fovea::MappedFile>> files;
  for (int i = 1; i < argc; ++i) {
    auto file = fovea::MappedFile::open(argv[i]);
    if (!file.ok() || !fovea::decode_image(file->bytes(), {}).ok()) {
      std::fprintf(stderr, "%s does not open as a picture\n", argv[i]);
      return 1;
    }
    files.push_back(std::make_unique<fovea::MappedFile>(std::move(*file)));
    const fovea::MappedFile& bytes = *files.back();
    const std::string name = argv[i];
    using benchmark::RegisterBenchmark;
    const auto milliseconds = benchmark::kMillisecond;
    RegisterBenchmark(("decode/" + name).c_str(), [&](auto& state) {
      decode(state, bytes);
    })->Unit(milliseconds);
    RegisterBenchmark(("crop/" + name).c_str(), [&](auto& state) {
      crop(state, bytes);
    })->Unit(milliseconds);
    RegisterBenchmark(("bytes_to_crops/" + name).c_str(), [&](auto& state) {
      bytes_to_crops(state, bytes);
    })->Unit(milliseconds);
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
