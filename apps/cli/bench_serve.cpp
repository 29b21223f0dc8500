#include "bench_serve.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <fmt/format.h>
#include <fmt/ostream.h>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "fovea/picture.h"

namespace fovea::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWidth = 850, kHeight = 600;  // nine crops of 378 pixels
constexpr std::string_view kQuestion =
    "Which of the bars in this chart is the highest one, what is its colour, and how much higher "
    "is "
    "it than the lowest bar? Answer with one number.";

// A bar chart of random heights and colours; what it shows follows from the seed.
Image draw_chart(unsigned seed) {
  std::mt19937 random(seed);
  Image image{kWidth, kHeight, std::vector<std::uint8_t>(std::size_t{3} * kWidth * kHeight, 255)};
  const auto fill = [&image](int x0, int y0, int x1, int y1, std::array<std::uint8_t, 3> colour) {
    for (int y = y0; y < y1; ++y) {
      for (int x = x0; x < x1; ++x) {
        std::copy(colour.begin(), colour.end(),
                  image.rgb.begin() + (std::ptrdiff_t{y} * kWidth + x) * 3);
      }
    }
  };
  for (int y = 60; y < kHeight - 40; y += 50) fill(60, y, kWidth - 20, y + 1, {210, 210, 210});
  const int num_bars = 4 + static_cast<int>(random() % 9);
  const int pitch = (kWidth - 90) / num_bars;
  for (int bar = 0; bar < num_bars; ++bar) {
    const int x = 65 + bar * pitch, height = 20 + static_cast<int>(random() % 480);
    fill(x, kHeight - 40 - height, x + pitch * 3 / 4, kHeight - 40,
         {static_cast<std::uint8_t>(random()), static_cast<std::uint8_t>(random()),
          static_cast<std::uint8_t>(random())});
  }
  fill(60, 20, 62, kHeight - 40, {0, 0, 0});
  fill(60, kHeight - 42, kWidth - 20, kHeight - 40, {0, 0, 0});
  return image;
}

struct Percentiles {
  double p50 = 0, p95 = 0, p99 = 0;
};

Percentiles percentiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  const auto at = [&values](double share) {
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
  };
  return {at(0.50), at(0.95), at(0.99)};
}

/// What one run of the workload measured.
struct Measured {
  double seconds = 0;
  int answered = 0, late = 0, failed = 0;  // late: given up at their deadline
  std::int64_t prompt_tokens = 0, cached_tokens = 0;
  std::vector<double> first_token_ms, total_ms;  // queueing included
  std::vector<double> hit_ms,
      miss_ms;  // time to first token without queueing, prefix cached or not
};

/// How the questions come.
struct Offer {
  int num_requests = 0, num_pictures = 0;
  double rate = 0;         ///< a second, at random; 0 = all at once
  double deadline_ms = 0;  ///< 0 = none
};

Measured offer(Engine& engine, const std::vector<Picture>& pictures, const BenchServeArgs& args,
               const Offer& how) {
  Measured measured;
  std::mutex mutex;
  std::condition_variable done;
  int outstanding = 0;
  const Clock::time_point started = Clock::now();
  const auto count = [&](const Result<Response>& answer) {
    const std::lock_guard lock(mutex);
    if (answer.ok()) {
      const Usage& usage = answer->usage;
      ++measured.answered;
      measured.prompt_tokens += usage.prompt_tokens;
      measured.cached_tokens += usage.cached_tokens;
      measured.first_token_ms.push_back(usage.ttft_ms);
      measured.total_ms.push_back(usage.total_ms);
      (usage.cached_tokens > usage.prompt_tokens / 2 ? measured.hit_ms : measured.miss_ms)
          .push_back(usage.ttft_ms - usage.queue_ms);
    } else {
      ++(answer.error().code == ErrorCode::kDeadlineExceeded ? measured.late : measured.failed);
    }
    --outstanding;
    done.notify_one();
  };
  const auto num_pictures = static_cast<std::size_t>(how.num_pictures);
  std::vector<std::size_t> order(static_cast<std::size_t>(how.num_requests));
  std::mt19937 random(1);
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = args.repeats_at_once ? i * num_pictures / order.size() : i % num_pictures;
  }
  // Repeats that come last do so in another order, as a second round of questions.
  if (!args.repeats_at_once && order.size() > num_pictures) {
    std::shuffle(order.begin() + how.num_pictures, order.end(), random);
  }
  std::exponential_distribution<double> gap_s(how.rate > 0 ? how.rate : 1);
  Clock::time_point due = started;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (how.rate > 0) {
      due +=
          std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(gap_s(random)));
      std::this_thread::sleep_until(due);
    }
    Request request{.skill = QueryRequest{std::string(kQuestion), false, {}},
                    .picture = pictures[order[i]]};
    request.sampling.temperature = 0;
    request.sampling.max_tokens = args.num_tokens;
    request.sampling.ignore_eos = true;
    if (how.deadline_ms > 0) request.deadline_ms = how.deadline_ms;
    {
      const std::lock_guard lock(mutex);
      ++outstanding;
    }
    const Result<std::uint64_t> id = engine.submit(std::move(request), {.on_done = count});
    if (!id.ok()) count(id.error());
  }
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return outstanding == 0; });
  measured.seconds = std::chrono::duration<double>(Clock::now() - started).count();
  return measured;
}

std::string percentile_columns(const Measured& measured) {
  const Percentiles first = percentiles(measured.first_token_ms);
  const Percentiles total = percentiles(measured.total_ms);
  return fmt::format("{:>8.0f} {:>8.0f} {:>8.0f}  {:>8.0f} {:>8.0f} {:>8.0f}", first.p50, first.p95,
                     first.p99, total.p50, total.p95, total.p99);
}

double rate_of(const Measured& measured) { return measured.answered / measured.seconds; }

/// One size of batch after the other, each in an engine of its own.
class BenchServe {
 public:
  BenchServe(const BenchServeArgs& args, Terminal& terminal) : args_(args), terminal_(terminal) {}

  int run() {
    double most = 1;
    for (const double factor : args_.overloads) most = std::max(most, factor);
    for (int i = 0; i < pictures_at(most); ++i) {
      Result<std::vector<std::byte>> file = encode_png(draw_chart(static_cast<unsigned>(i)));
      if (!file.ok()) return report_failure(file.error(), false, terminal_);
      pictures_.emplace_back(std::move(file).value());
    }
    for (int i = 0; i < args_.num_rounds; ++i) {
      if (i > 0) fmt::print(terminal_.out, "\n");
      if (const Status done = round(); !done.ok()) {
        return report_failure(done.error(), false, terminal_);
      }
    }
    if (args_.num_rounds > 1) print_sums();
    return finish(terminal_);
  }

 private:
  /// What the rounds reached together, at one size of batch.
  struct Sum {
    double capacity = 0;
    std::vector<double> in_time;  // at each of the overloads
  };

  // Machines are faster at times, shared ones by a third within a minute: what could be answered is
  // measured anew right before what is answered in time of more than that.
  Status round() {
    print_head();
    std::vector<double> reached;
    for (const int batch : args_.batches) {
      const Result<Measured> measured = measure(batch, {.num_requests = args_.num_requests,
                                                        .num_pictures = args_.num_pictures,
                                                        .rate = args_.rate});
      if (!measured.ok()) return measured.error();
      print_row(batch, *measured);
      reached.push_back(rate_of(*measured));
    }
    if (!args_.overloads.empty()) print_overload_head();
    sums_.resize(args_.batches.size());
    for (std::size_t i = 0; i < args_.batches.size(); ++i) {
      sums_[i].capacity += reached[i];
      sums_[i].in_time.resize(args_.overloads.size());
      for (std::size_t k = 0; k < args_.overloads.size(); ++k) {
        const Result<double> in_time = overload(args_.batches[i], reached[i], args_.overloads[k]);
        if (!in_time.ok()) return in_time.error();
        sums_[i].in_time[k] += *in_time;
      }
    }
    return {};
  }

  Result<Measured> measure(int batch, const Offer& how) {
    ModelArgs model = args_.model;
    model.options.max_sequences = batch;
    model.options.max_queue = how.num_requests;
    Result<std::unique_ptr<Engine>> engine = load_engine(model, terminal_);
    if (!engine.ok()) return std::move(engine).error();
    return offer(**engine, pictures_, args_, how);
  }

  int requests_at(double factor) const {
    return std::max(1, static_cast<int>(std::lround(factor * args_.num_requests)));
  }
  int pictures_at(double factor) const {
    const double wanted = args_.num_pictures * (args_.pictures_grow ? factor : 1);
    return std::clamp(static_cast<int>(std::lround(wanted)), 1, requests_at(factor));
  }

  // Answers in time, a second. The questions go on for as long as those took that told the
  // capacity: an engine begins with nothing cached and no idea of what anything takes, and that
  // beginning must weigh as much here as there.
  Result<double> overload(int batch, double capacity, double factor) {
    if (capacity <= 0) return Error{ErrorCode::kInternal, "nothing was answered"};
    // In a full batch an answer takes as long as `batch` answers take together (Little's law).
    const double deadline_ms =
        args_.deadline_ms > 0 ? args_.deadline_ms : 4 * 1000 * batch / capacity;
    const Result<Measured> measured = measure(batch, {.num_requests = requests_at(factor),
                                                      .num_pictures = pictures_at(factor),
                                                      .rate = factor * capacity,
                                                      .deadline_ms = deadline_ms});
    if (!measured.ok()) return measured.error();
    fmt::print(terminal_.out, "{:>5} {:>10.2f} {:>8.0f} {:>10.2f} {:>8.1f} {:>7}  {}\n", batch,
               factor * capacity, deadline_ms, rate_of(*measured),
               100 * rate_of(*measured) / capacity, measured->late + measured->failed,
               percentile_columns(*measured));
    terminal_.out.flush();
    return rate_of(*measured);
  }

  void print_sums() {
    fmt::print(terminal_.out, "\n{} rounds\n{:>5} {:>10} {:>8} {:>10} {:>8}\n", args_.num_rounds,
               "batch", "requests/s", "overload", "in time/s", "% of it");
    for (std::size_t i = 0; i < sums_.size(); ++i) {
      for (std::size_t k = 0; k < args_.overloads.size(); ++k) {
        fmt::print(terminal_.out, "{:>5} {:>10.2f} {:>8.1f} {:>10.2f} {:>8.1f}\n", args_.batches[i],
                   sums_[i].capacity / args_.num_rounds, args_.overloads[k],
                   sums_[i].in_time[k] / args_.num_rounds,
                   100 * sums_[i].in_time[k] / sums_[i].capacity);
      }
    }
  }

  void print_head() {
    fmt::print(
        terminal_.out,
        "{} requests about {} charts of {}x{} ({:.1f} % repeated), {} tokens each, {}\n"
        "{:>5} {:>10} {:>8} {:>7}  {:^26}  {:^26}  {:>9} {:>9}\n"
        "{:>5} {:>10} {:>8} {:>7}  {:>8} {:>8} {:>8}  {:>8} {:>8} {:>8}  {:>9} {:>9}\n",
        args_.num_requests, args_.num_pictures, kWidth, kHeight,
        100.0 * (args_.num_requests - args_.num_pictures) / args_.num_requests, args_.num_tokens,
        args_.rate > 0 ? fmt::format("{} a second", args_.rate) : "all at once", "batch",
        "requests/s", "cached", "failed", "first token ms", "whole request ms", "hit", "miss", "",
        "", "%", "", "P50", "P95", "P99", "P50", "P95", "P99", "P50 ms", "P50 ms");
  }

  void print_row(int batch, const Measured& measured) {
    fmt::print(terminal_.out, "{:>5} {:>10.2f} {:>8.1f} {:>7}  {}  {:>9.1f} {:>9.1f}\n", batch,
               rate_of(measured),
               100.0 * static_cast<double>(measured.cached_tokens) /
                   static_cast<double>(std::max<std::int64_t>(1, measured.prompt_tokens)),
               measured.failed + measured.late, percentile_columns(measured),
               percentiles(measured.hit_ms).p50, percentiles(measured.miss_ms).p50);
    terminal_.out.flush();
  }

  void print_overload_head() {
    fmt::print(terminal_.out,
               "\nAt multiples of that: offered at random times, each with a deadline\n"
               "{:>5} {:>10} {:>8} {:>10} {:>8} {:>7}  {:^26}  {:^26}\n"
               "{:>5} {:>10} {:>8} {:>10} {:>8} {:>7}  {:>8} {:>8} {:>8}  {:>8} {:>8} {:>8}\n",
               "batch", "offered/s", "deadline", "in time/s", "of what", "given", "first token ms",
               "whole request ms", "", "", "ms", "", "is there", "up", "P50", "P95", "P99", "P50",
               "P95", "P99");
  }

  const BenchServeArgs& args_;
  Terminal& terminal_;
  std::vector<Picture> pictures_;
  std::vector<Sum> sums_;  // one for each size of batch
};

}  // namespace

int run_bench_serve(const BenchServeArgs& args, Terminal& terminal) {
  return BenchServe(args, terminal).run();
}

}  // namespace fovea::cli
