// tokenizer_bench TOKENIZER TEXT [options of Google Benchmark]: encode, decode and load on one
// core. Bytes per second are bytes of text. bench/tokenizer_beside_reference.py makes both files
// and runs the PyPI package `tokenizers` beside it.

#include <benchmark/benchmark.h>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include "io/tokenizer.h"

namespace {

void count_bytes(benchmark::State& state, std::size_t bytes) {
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) *
                          static_cast<std::int64_t>(bytes));
}

void encode_whole(benchmark::State& state, const fovea::Tokenizer& tokenizer,
                  const std::string& text) {
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.encode(text));
  count_bytes(state, text.size());
}

// Requests are short: a question at a time.
void encode_lines(benchmark::State& state, const fovea::Tokenizer& tokenizer,
                  const std::string& text) {
  for (auto _ : state) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      benchmark::DoNotOptimize(tokenizer.encode(std::string_view(text).substr(at, end - at)));
      at = end + 1;
    }
  }
  count_bytes(state, text.size());
}

void decode(benchmark::State& state, const fovea::Tokenizer& tokenizer, const std::string& text) {
  const auto ids = tokenizer.encode(text);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.decode(ids));
  count_bytes(state, text.size());
}

void load(benchmark::State& state, const std::string& path) {
  for (auto _ : state) benchmark::DoNotOptimize(fovea::Tokenizer::load(path));
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc != 3) {
    std::fprintf(stderr, "usage: tokenizer_bench TOKENIZER TEXT\n");
    return 2;
  }
  const std::string path = argv[1];
  const auto tokenizer = fovea::Tokenizer::load(path);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.error().message.c_str());
    return 1;
  }
  std::ifstream file(argv[2], std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  benchmark::RegisterBenchmark("encode_whole", encode_whole, *tokenizer, text)
      ->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("encode_lines", encode_lines, *tokenizer, text)
      ->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("decode", decode, *tokenizer, text)->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("load", load, path)->Unit(benchmark::kMillisecond);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
