#include "bench_options.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "options.h"

namespace fovea::cli {

CLI::App& add_bench_command(CLI::App& app, RawBenchArgs& raw) {
  CLI::App& bench = *app.add_subcommand("bench", "Measure the engine on this machine");
  bench.require_subcommand(1);
  CLI::App& sub = *bench.add_subcommand("serve", "Many questions about charts at once");
  BenchServeArgs& args = raw.args;
  add_model_options(sub, args.model);
  add_engine_options(sub, args.model.options);
  // The workload decides about these two.
  sub.remove_option(sub.get_option("--max-sequences"));
  sub.remove_option(sub.get_option("--max-queue"));
  add_integer(sub, "--requests", 1, "Questions in all; 2500 when not given",
              [&args](int value) { args.num_requests = value; });
  add_integer(sub, "--pictures", 1, "Different charts; 1510 when not given",
              [&raw](int value) { raw.num_pictures = value; });
  sub.add_option("--repeat", raw.repeat_percent,
                 "Instead: so many of 100 questions are about a chart asked about before")
      ->option_text("PERCENT")
      ->check(CLI::Range(0.0, 99.9));
  add_integer(sub, "--tokens", 1,
              "Tokens of each answer; 3 when not given (direct), 33 for reasoning",
              [&args](int value) { args.num_tokens = value; });
  sub.add_option("--batch", args.batches, "Answers generated at once; 1,4,16,64 when not given")
      ->option_text("N,...")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  sub.add_flag("--repeats-at-once", args.repeats_at_once,
               "A picture's questions follow each other; else a second round asks them");
  sub.add_option("--rate", args.rate, "Questions a second; all at once when not given")
      ->option_text("X")
      ->check(CLI::PositiveNumber);
  sub.add_option("--overload", args.overloads,
                 "Then also at these multiples of what was reached, with deadlines")
      ->option_text("X,...")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  sub.add_option("--deadline", args.deadline_ms,
                 "Of these, in milliseconds; 4 times an answer's own time when not given")
      ->option_text("MS")
      ->check(CLI::PositiveNumber);
  add_integer(sub, "--rounds", 1,
              "With --overload: all of it so many times, and the sums; 1 when not given",
              [&args](int value) { args.num_rounds = value; });
  sub.footer(
      "Examples:\n"
      "  fovea bench serve --requests 200 --repeat 0 --batch 1,16\n"
      "  fovea bench serve --requests 500 --pictures 4 --tokens 33 --batch 16 --overload 1,2");
  return bench;
}

Result<BenchServeArgs> make_bench_args(RawBenchArgs raw) {
  BenchServeArgs& args = raw.args;
  if (raw.num_pictures && raw.repeat_percent) {
    return usage("--pictures and --repeat say the same: give one of them");
  }
  if (args.deadline_ms > 0 && args.overloads.empty()) return usage("--deadline needs --overload");
  if (args.num_rounds > 1 && args.overloads.empty()) return usage("--rounds needs --overload");
  if (!args.overloads.empty() && args.rate > 0) {
    return usage("--overload finds its own rates: leave out --rate");
  }
  if (raw.num_pictures) args.num_pictures = *raw.num_pictures;
  args.pictures_grow = !raw.num_pictures;
  if (raw.repeat_percent) {
    const double different = args.num_requests * (1 - *raw.repeat_percent / 100);
    args.num_pictures = std::max(1, static_cast<int>(std::lround(different)));
  }
  args.num_pictures = std::min(args.num_pictures, args.num_requests);
  return std::move(args);
}

}  // namespace fovea::cli
