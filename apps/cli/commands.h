#pragma once

#include <filesystem>
#include <istream>
#include <memory>
#include <ostream>
#include <span>
#include <string>

#include "fovea/engine.h"

#include "args.h"
#include "models_folder.h"

namespace fovea::cli {

/// Everything that a command touches of the process it runs in.
struct Terminal {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool err_is_terminal = false;      ///< a person watches: progress may be shown
  std::filesystem::path executable;  ///< the program's own path
  Environment environment{};
};

/// Runs the program and returns its exit code. `args` leaves out the program's own name.
int run(std::span<const std::string> args, Terminal terminal);

/// caption, query, detect and point.
int run_skill(const SkillArgs& args, Terminal& terminal);

int run_info(const InfoArgs& args, Terminal& terminal);

/// The path of the model that the arguments name.
Result<std::filesystem::path> find_model(const ModelArgs& args, const Terminal& terminal);

/// Loads the model that the arguments name, with a progress line where a person watches.
Result<std::unique_ptr<Engine>> load_engine(const ModelArgs& args, Terminal& terminal);

/// Says what went wrong on the error stream, and with `json` as an object on the output too.
int report_failure(const Error& error, bool json, Terminal& terminal);

/// Exit code 0 once everything printed has really been written.
int finish(Terminal& terminal);

}  // namespace fovea::cli
