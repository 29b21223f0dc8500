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

#include "pull_args.h"

namespace fovea::cli {

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

/// What a person said about the model and the machine.
struct ModelArgs {
  std::optional<std::string> model;  ///< a folder, a weights file, "tiny", or what was pulled
  std::optional<std::string> models_dir;
  EngineOptions options;  ///< everything but the resolved path
};

/// Where a request's picture comes from.
struct PictureSource {
  std::string path;  ///< "-" is standard input
};

struct SkillArgs {
  ModelArgs model;
  std::vector<SkillRequest> skills;  ///< one for each QUESTION or THING, all about one picture
  int num_answers = 1;               ///< to each of them
  std::optional<std::string> json_schema;  ///< the schema itself, or the name of its file
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
  bool pictures_grow = true;  ///< with the questions, where more of these are offered
  /// A picture's questions follow each other; else repeats come last.
  bool repeats_at_once = false;
  int num_tokens = 3;  ///< of each answer
  double rate = 0;     ///< requests a second; 0 = all at once
  std::vector<int> batches{1, 4, 16, 64};
  /// Then the same at these multiples of the rate that was measured, each with a deadline.
  std::vector<double> overloads;
  double deadline_ms = 0;  ///< of these; 0 = four times what an answer takes in a full batch
  int num_rounds = 1;      ///< of all of it, each with what it reached itself for a measure
};

/// One question, or several of one skill, about each of many pictures.
struct BatchArgs {
  ModelArgs model;
  std::vector<std::string> paths;  ///< files, folders, globs, "@list"
  std::vector<std::string> lists;  ///< files of paths; "-" is standard input
  bool recursive = false;          ///< also the folders within folders
  std::vector<SkillRequest> questions;
  std::optional<std::string> json_schema;  ///< of queries: the schema, or the name of its file
  SamplingParams sampling;
  bool apply_exif = true;
  bool tokens = false;
  bool overwrite = false;  ///< begin anew instead of going on
  bool dry_run = false;
  bool sidecar = false;                                 ///< the answer beside the picture as .txt
  std::filesystem::path out;                            ///< the JSON lines; always there
  std::optional<std::filesystem::path> csv, coco;       ///< files
  std::optional<std::filesystem::path> yolo, annotate;  ///< folders
};

/// Nothing to run: help, the version, or a usage error.
struct PrintAndExit {
  int exit_code = kExitOk;
  std::string out;
  std::string err;
};

struct ServeArgs;  // serve_args.h

using ParsedArgs = std::variant<SkillArgs, InfoArgs, BenchServeArgs, BatchArgs, PullArgs,
                                ModelsArgs, std::shared_ptr<ServeArgs>, PrintAndExit>;

/// Reads the command line; `args` leaves out the program's own name.
ParsedArgs parse_args(std::span<const std::string> args);

}  // namespace fovea::cli
