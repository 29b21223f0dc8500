#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fovea/request.h"
#include "fovea/result.h"

#include "args.h"

namespace fovea::cli {

/// What CLI11 fills in for `fovea batch`.
struct RawBatchArgs {
  enum class Skill { kCaption, kQuery, kDetect, kPoint };

  BatchArgs args;
  std::optional<Skill> skill;
  std::vector<std::string> texts;
  std::optional<CaptionLength> length;
  std::optional<int> max_objects;
  std::vector<SpatialRef> spatial_refs;
  bool reasoning = false;
  bool no_exif = false;
};

/// Adds the command `batch`; `raw` outlives `app`.
CLI::App& add_batch_command(CLI::App& app, RawBatchArgs& raw);

/// Checks what was given together, and makes the questions. Errors: wrong usage.
Result<BatchArgs> make_batch_args(RawBatchArgs raw);

}  // namespace fovea::cli
