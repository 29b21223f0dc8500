#pragma once

#include "args.h"
#include "commands.h"

namespace fovea::cli {

/// `fovea bench serve`: many questions about charts at once, through the engine in this process.
int run_bench_serve(const BenchServeArgs& args, Terminal& terminal);

}  // namespace fovea::cli
