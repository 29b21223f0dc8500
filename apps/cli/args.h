#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "fovea/options.h"
#include "fovea/request.h"
#include "fovea/result.h"

namespace fovea::cli {

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

/// What a person said about the model and the machine.
struct ModelArgs {
  std::optional<std::string> model;  ///< a folder, a weights file, or "tiny"
  EngineOptions options;             ///< everything but the resolved path
};

/// Where a request's picture comes from.
struct PictureSource {
  std::string path;  ///< "-" is standard input
};

struct SkillArgs {
  ModelArgs model;
  SkillRequest skill;
  SamplingParams sampling;
  std::optional<PictureSource> picture;
  bool apply_exif = true;
  bool stream = false;
  bool json = false;
  bool tokens = false;
  std::optional<std::filesystem::path> annotate;
};

struct InfoArgs {
  ModelArgs model;
  bool json = false;
};

/// The chart workload: every picture is asked about once, then the first ones again.
struct BenchServeArgs {
  ModelArgs model;
  int num_requests = 2500;
  int num_pictures = 1510;
  int num_tokens = 3;  ///< of each answer
  double rate = 0;     ///< requests a second; 0 = all at once
  std::vector<int> batches{1, 4, 16, 64};
};

/// Nothing to run: help, the version, or a usage error.
struct PrintAndExit {
  int exit_code = kExitOk;
  std::string out;
  std::string err;
};

struct ServeArgs;  // serve_args.h

using ParsedArgs =
    std::variant<SkillArgs, InfoArgs, BenchServeArgs, std::shared_ptr<ServeArgs>, PrintAndExit>;

/// Reads the command line; `args` leaves out the program's own name.
ParsedArgs parse_args(std::span<const std::string> args);

}  // namespace fovea::cli
