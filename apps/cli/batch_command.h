#pragma once

#include "args.h"
#include "commands.h"

namespace fovea::cli {

/// Exit code of a batch that a signal stopped: 128 and the signal's number, as shells have it.
constexpr int kExitSignalled = 128;

/// Asks about many pictures; goes on where an earlier run stopped.
int run_batch(const BatchArgs& args, Terminal& terminal);

}  // namespace fovea::cli
