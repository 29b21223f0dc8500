// Runs the engine for as long as one likes on a mixed load that never repeats, and tells whether
// memory stays flat: every skill, new and known pictures, adapters, streams, cancels, deadlines and
// requests that must fail. Ends with 1 when memory grows or something is left behind.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <malloc.h>
#include <map>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

#include "fovea/engine.h"
#include "fovea/picture.h"

#include "base/try.h"
#include "io/checkpoint.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr double kMib = 1024.0 * 1024.0;
constexpr int kKnownPictures = 40;

struct Options {
  fs::path model = FOVEA_TINY_MODEL;
  double seconds = 60;
  double sample_seconds = 5;
  int threads = 1;
  int in_flight = 24;
  unsigned seed = 1;
};

// ---- what is asked --------------------------------------------------------------------------

/// Draws requests. Most are good; some cannot be answered, and must fail alone.
class Load {
 public:
  explicit Load(unsigned seed) : random_(seed) {
    for (unsigned i = 0; i < kKnownPictures; ++i) known_.push_back(draw(i));
  }

  Request next() {
    Request request;
    request.skill = skill();
    const bool text_alone = std::holds_alternative<QueryRequest>(request.skill) &&
                            std::get<QueryRequest>(request.skill).spatial_refs.empty() && one_in(6);
    if (!text_alone) {
      request.picture =
          one_in(2) ? draw(static_cast<unsigned>(random_())) : known_[random_() % known_.size()];
    }
    sample(request.sampling);
    request.adapter = std::array{"", "", "first", "second"}[random_() % 4];
    request.priority = static_cast<int>(random_() % 3) - 1;
    if (one_in(12)) spoil(request);
    return request;
  }

  bool one_in(unsigned n) { return random_() % n == 0; }
  std::size_t below(std::size_t n) { return random_() % n; }

 private:
  SkillRequest skill() {
    static constexpr std::array kThings{"circle", "red boat", "something that is not there"};
    static constexpr std::array kQuestions{"What is this?", "How many things are there?",
                                           "Is there a dog, and if so what does it do?"};
    const char* thing = kThings[random_() % kThings.size()];
    const char* question = kQuestions[random_() % kQuestions.size()];
    switch (random_() % 7) {
      case 0:
        return CaptionRequest{static_cast<CaptionLength>(random_() % 3)};
      case 1:
        return DetectRequest{thing, 8};
      case 2:
        return PointRequest{thing, 8, {}};
      case 3:
        return QueryRequest{question, true, {}, {}};
      case 4:
        return QueryRequest{question, false, {std::array{0.25F, 0.5F}}, {}};
      case 5:
        return QueryRequest{
            question, false, {}, R"({"type":"object","properties":{"count":{"type":"integer"}}})"};
      default:
        return QueryRequest{question, false, {}, {}};
    }
  }

  void sample(SamplingParams& sampling) {
    sampling.max_tokens = 1 + static_cast<int>(random_() % 48);
    sampling.seed = random_();
    if (one_in(2)) sampling.temperature = 1.0F;
    if (one_in(4)) sampling.top_logprobs = static_cast<int>(random_() % 5);
    if (one_in(4)) sampling.repetition_penalty = 1.1F;
    if (one_in(4)) sampling.frequency_penalty = 0.5F;
    if (one_in(4)) sampling.logit_bias = {{7, -2.0F}, {300, 1.0F}};
    if (one_in(4)) sampling.stop = {"the", "."};
  }

  void spoil(Request& request) {
    switch (random_() % 5) {
      case 0:
        request.picture = Picture(std::vector<std::byte>(100, std::byte{0x89}));
        break;
      case 1:
        request.adapter = "nobody";
        break;
      case 2:
        request.deadline_ms = 1 + static_cast<double>(random_() % 500);
        break;
      case 3:
        request.sampling.max_tokens = 1 << 30;
        break;
      default:
        request.skill = QueryRequest{"  ", {}, {}, {}};
    }
  }

  // A disc on a ground. Half of them as files, sizes from one crop to many.
  static Picture draw(unsigned number) {
    std::mt19937 random(number);
    const int width = 60 + static_cast<int>(random() % 900);
    const int height = 60 + static_cast<int>(random() % 700);
    const int radius = std::min(width, height) / (2 + static_cast<int>(random() % 4));
    const auto ground = static_cast<std::uint8_t>(random());
    const auto disc = static_cast<std::uint8_t>(random());
    Image image{width, height, {}};
    image.rgb.reserve(std::size_t{3} * static_cast<std::size_t>(width * height));
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const int dx = x - width / 2, dy = y - height / 2;
        const bool inside = dx * dx + dy * dy < radius * radius;
        for (int c = 0; c < 3; ++c) {
          image.rgb.push_back(static_cast<std::uint8_t>((inside ? disc : ground) * (c + 1)));
        }
      }
    }
    if (random() % 2 == 0) return image;
    Result<std::vector<std::byte>> file = encode_png(image);
    return file.ok() ? Picture(std::move(file).value()) : Picture(std::move(image));
  }

  std::mt19937 random_;
  std::vector<Picture> known_;
};

/// A random adapter for every linear of the text model, as a file.
Status write_adapter(const Checkpoint& checkpoint, const fs::path& path, int rank, unsigned seed) {
  struct Part {
    std::string name;
    std::int64_t rows, columns;
  };
  std::vector<Part> parts;
  for (const TensorEntry& tensor : checkpoint.tensors()) {
    const std::size_t begin = tensor.name.find("text.blocks.");
    const std::size_t end = tensor.name.rfind(".weight");
    if (begin == std::string::npos || end == std::string::npos || tensor.shape.rank() != 2) {
      continue;
    }
    const std::string linear = tensor.name.substr(begin, end - begin);
    parts.push_back({linear + ".A", rank, tensor.shape[1]});
    parts.push_back({linear + ".B", tensor.shape[0], rank});
  }
  std::string header;
  std::int64_t bytes = 0;
  for (const Part& part : parts) {
    const std::int64_t end = bytes + part.rows * part.columns * 4;
    header +=
        fmt::format(R"({}"{}":{{"dtype":"F32","shape":[{},{}],"data_offsets":[{},{}]}})",
                    header.empty() ? "{" : ",", part.name, part.rows, part.columns, bytes, end);
    bytes = end;
  }
  header += '}';
  std::mt19937 random(seed);
  std::normal_distribution<float> values(0, 0.02F);
  std::vector<float> data(static_cast<std::size_t>(bytes) / 4);
  for (float& value : data) value = values(random);
  const std::uint64_t header_bytes = header.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&header_bytes), sizeof header_bytes);
  file << header;
  file.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(bytes));
  if (!file.flush()) return Error{ErrorCode::kIo, "cannot write " + path.string()};
  return {};
}

// ---- what is measured -----------------------------------------------------------------------

struct Sample {
  double seconds = 0;
  double resident_mib = 0;
  double heap_mib = 0;  // of it, what malloc has handed out
  int files = 0;        // open ones
};

Sample take_sample(double seconds) {
  std::ifstream statm("/proc/self/statm");
  double pages = 0, resident = 0;
  statm >> pages >> resident;
  const struct mallinfo2 heap = mallinfo2();
  const auto files =
      std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  return {seconds, resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / kMib,
          static_cast<double>(heap.uordblks + heap.hblkhd) / kMib, static_cast<int>(files)};
}

/// What a line fitted to the samples rises by from the first to the last of them.
double rise(const std::vector<Sample>& samples, double Sample::*value) {
  const auto n = static_cast<double>(samples.size());
  double mean_t = 0, mean_v = 0, tv = 0, tt = 0;
  for (const Sample& sample : samples) {
    mean_t += sample.seconds / n;
    mean_v += sample.*value / n;
  }
  for (const Sample& sample : samples) {
    tv += (sample.seconds - mean_t) * (sample.*value - mean_v);
    tt += (sample.seconds - mean_t) * (sample.seconds - mean_t);
  }
  return tt > 0 ? tv / tt * (samples.back().seconds - samples.front().seconds) : 0;
}

/// Whether memory stayed flat behind the first quarter, in which caches fill.
bool report(const std::vector<Sample>& samples) {
  const std::vector<Sample> settled(
      samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 4), samples.end());
  double low = settled.front().resident_mib, high = low;
  for (const Sample& sample : settled) {
    low = std::min(low, sample.resident_mib);
    high = std::max(high, sample.resident_mib);
  }
  const double grown = rise(settled, &Sample::resident_mib);
  const double heap_grown = rise(settled, &Sample::heap_mib);
  const bool flat = grown <= 0.02 * low;
  fmt::print(
      "behind the first quarter: resident {:.1f} to {:.1f} MiB, its trend {:+.2f} MiB; heap's "
      "trend "
      "{:+.2f} MiB; open files {} and {}\n{}\n",
      low, high, grown, heap_grown, settled.front().files, settled.back().files,
      flat ? "flat: the trend is within 2 % of what is resident"
           : "NOT flat: the trend is above 2 % of what is resident");
  return flat;
}

// ---- the run --------------------------------------------------------------------------------

class Soak {
 public:
  Soak(Engine& engine, const Options& options)
      : engine_(engine), options_(options), load_(options.seed) {}

  bool run() {
    const Clock::time_point started = Clock::now();
    std::vector<Sample> samples;
    fmt::print("{:>8} {:>9} {:>9} {:>9} {:>7} {:>9} {:>9} {:>5}\n", "seconds", "answered",
               "cancelled", "refused", "failed", "RSS MiB", "heap MiB", "files");
    double seconds = 0, next_sample = options_.sample_seconds;
    while (seconds < options_.seconds) {
      ask();
      seconds = std::chrono::duration<double>(Clock::now() - started).count();
      if (seconds < next_sample) continue;
      samples.push_back(take_sample(seconds));
      print(samples.back());
      next_sample = std::max(next_sample + options_.sample_seconds, seconds);
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return outstanding_ == 0; });
    lock.unlock();
    samples.push_back(take_sample(seconds));
    print(samples.back());
    engine_.drop_caches();
    const EngineStats stats = engine_.stats();
    const bool clean = stats.pages_free == stats.pages_total && stats.num_running == 0 &&
                       stats.num_waiting == 0 && unexpected_ == 0;
    for (const auto& [code, count] : errors_) fmt::print("{}: {}\n", code, count);
    fmt::print("pages in use {}, running {}, waiting {}, pre-emptions {}, picture hits {} of {}\n",
               stats.pages_total - stats.pages_free, stats.num_running, stats.num_waiting,
               stats.num_preemptions, stats.num_image_hits,
               stats.num_image_hits + stats.num_image_misses);
    if (unexpected_ > 0) fmt::print("NOT clean: {} errors of our own\n", unexpected_);
    return report(samples) && clean;
  }

 private:
  void ask() {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return outstanding_ < options_.in_flight; });
      ++outstanding_;
    }
    Callbacks callbacks;
    callbacks.on_done = [this](const Result<Response>& answer) { done(answer); };
    if (load_.one_in(3)) {
      // Goes on, stops after a while, or throws.
      const std::size_t pieces = load_.below(60), how = load_.below(4);
      callbacks.on_text = [pieces, how, count = std::size_t{0}](std::string_view) mutable {
        if (count++ < pieces) return true;
        if (how == 0) throw std::runtime_error("a callback's own fault");
        return how > 1;
      };
    }
    const Result<std::uint64_t> id = engine_.submit(load_.next(), std::move(callbacks));
    if (!id.ok()) {
      done(id.error());
      return;
    }
    if (load_.one_in(5)) victims_.push_back(*id);
    // Those that were marked are cancelled a little later, at any stage of their work.
    while (victims_.size() > load_.below(6)) {
      engine_.cancel(victims_.front());
      victims_.pop_front();
    }
  }

  void done(const Result<Response>& answer) {
    const std::lock_guard lock(mutex_);
    if (answer.ok()) {
      ++answered_;
    } else {
      const ErrorCode code = answer.error().code;
      ++errors_[error_code_name(code)];
      if (code == ErrorCode::kInternal || code == ErrorCode::kDeviceLost ||
          code == ErrorCode::kIo) {
        if (unexpected_++ == 0) fmt::print("unexpected: {}\n", answer.error().message);
      }
    }
    --outstanding_;
    changed_.notify_one();
  }

  void print(const Sample& sample) {
    const std::lock_guard lock(mutex_);
    const int cancelled = errors_["cancelled"];
    int others = 0;
    for (const auto& [code, count] : errors_) others += count;
    fmt::print("{:>8.0f} {:>9} {:>9} {:>9} {:>7} {:>9.1f} {:>9.1f} {:>5}\n", sample.seconds,
               answered_, cancelled, others - cancelled - unexpected_, unexpected_,
               sample.resident_mib, sample.heap_mib, sample.files);
    std::fflush(stdout);
  }

  Engine& engine_;
  const Options& options_;
  Load load_;
  std::deque<std::uint64_t> victims_;
  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  int outstanding_ = 0, answered_ = 0, unexpected_ = 0;
  std::map<std::string, int> errors_;
};

Result<bool> soak(const Options& options, const fs::path& folder) {
  EngineOptions engine_options;
  engine_options.model = options.model;
  engine_options.num_threads = options.threads;
  engine_options.max_context = 1024;
  engine_options.max_sequences = 12;
  engine_options.max_queue = 2 * options.in_flight;  // an answer leaves a moment after it is told
  engine_options.kv_cache_bytes = std::size_t{64} << 20;  // full soon: eviction and pre-emption
  engine_options.image_cache_bytes = std::size_t{16} << 20;
  engine_options.image_cache_folder = folder / "pictures";
  engine_options.image_cache_folder_bytes = std::size_t{64} << 20;
  {
    FOVEA_TRY(const Checkpoint checkpoint, Checkpoint::open(options.model));
    FOVEA_TRY_STATUS(write_adapter(checkpoint, folder / "first.safetensors", 4, 1));
    FOVEA_TRY_STATUS(write_adapter(checkpoint, folder / "second.safetensors", 16, 2));
  }
  engine_options.adapters = {{"first", folder / "first.safetensors"},
                             {"second", folder / "second.safetensors"}};
  FOVEA_TRY(const std::unique_ptr<Engine> engine, Engine::create(engine_options));
  return Soak(*engine, options).run();
}

}  // namespace
}  // namespace fovea

int main(int argc, char** argv) {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 64 << 10);  // as the program does; see apps/cli/main.cpp
#endif
  fovea::Options options;
  CLI::App app("Runs the engine on a mixed load and tells whether its memory stays flat.");
  app.add_option("--model", options.model,
                 "Folder with weights; the model in the box if not given");
  app.add_option("--seconds", options.seconds, "How long; 60 when not given")
      ->check(CLI::PositiveNumber);
  app.add_option("--sample", options.sample_seconds, "Seconds between samples; 5 when not given")
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", options.threads, "CPU threads; 1 when not given");
  app.add_option("--in-flight", options.in_flight, "Requests at once; 24 when not given")
      ->check(CLI::Range(1, 10'000));
  app.add_option("--seed", options.seed, "Of the load");
  CLI11_PARSE(app, argc, argv);

  std::string folder = (fovea::fs::temp_directory_path() / "fovea_soak_XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) {
    fmt::print(stderr, "soak: cannot make a folder for temporary files\n");
    return 1;
  }
  const fovea::Result<bool> passed = fovea::soak(options, folder);
  std::error_code ignored;
  fovea::fs::remove_all(folder, ignored);
  if (!passed.ok()) {
    fmt::print(stderr, "soak: {}\n", passed.error().message);
    return 1;
  }
  return *passed ? 0 : 1;
}
