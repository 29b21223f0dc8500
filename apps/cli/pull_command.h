#pragma once

#include "commands.h"
#include "pull_args.h"

namespace fovea::cli {

/// Downloads a model and returns the exit code.
int run_pull(const PullArgs& args, Terminal& terminal);

/// Lists what is there, or removes a model, and returns the exit code.
int run_models(const ModelsArgs& args, Terminal& terminal);

}  // namespace fovea::cli
