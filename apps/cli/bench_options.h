#pragma once

#include <CLI/CLI.hpp>
#include <optional>

#include "fovea/result.h"

#include "args.h"

namespace fovea::cli {

/// What CLI11 fills in for `fovea bench serve`.
struct RawBenchArgs {
  BenchServeArgs args;
  std::optional<int> num_pictures;
  std::optional<double> repeat_percent;
};

/// Adds the command; `raw` must stay where it is until parsing is done.
CLI::App& add_bench_command(CLI::App& app, RawBenchArgs& raw);

/// What was given, once CLI11 has parsed it. Errors: what does not go together.
Result<BenchServeArgs> make_bench_args(RawBenchArgs raw);

}  // namespace fovea::cli
