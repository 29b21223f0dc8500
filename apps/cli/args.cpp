#include "args.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "fovea/engine.h"

#include "batch_options.h"
#include "bench_options.h"
#include "help_formatter.h"
#include "options.h"
#include "pull_options.h"
#include "serve_command.h"
#include "usage_message.h"
#include "utf8.h"
#include "values.h"

namespace fovea::cli {
namespace {

constexpr std::size_t kMaxTexts = 64;
constexpr int kMaxAnswers = 128;
constexpr int kMaxSequences = 16;  // generated at once; more answers wait for their turn

// What CLI11 fills in. Everything that is a number or has a shape goes through values.h, so that
// one place says what is accepted ("0x10", "1e3" or "nan" for --threads are not).
struct RawArgs {
  RawBenchArgs bench;
  RawBatchArgs batch;
  PullArgs pull;
  ModelsArgs models;
  std::shared_ptr<ServeArgs> serve = std::make_shared<ServeArgs>();
  ModelArgs model;
  SamplingParams sampling;
  std::string picture;
  std::string text;
  std::vector<std::string> more_texts;
  int num_answers = 1;
  std::optional<std::string> json_schema;
  CaptionLength length = CaptionLength::kNormal;
  std::optional<int> max_objects;
  std::vector<SpatialRef> spatial_refs;
  std::string annotate;
  bool no_picture = false;
  bool reasoning = false;
  bool stream = false;
  bool json = false;
  bool tokens = false;
  bool no_exif = false;
};

void add_picture_argument(CLI::App& sub, RawArgs& raw) {
  sub.add_option("PICTURE", raw.picture, "A JPEG, PNG, WebP or GIF file; - reads standard input");
}

void add_max_objects_option(CLI::App& app, RawArgs& raw) {
  add_integer(
      app, "--max-objects", 1, "List this many at most",
      [&raw](int value) { raw.max_objects = value; }, kMaxObjects);
}

void add_spatial_ref_option(CLI::App& app, RawArgs& raw, const std::string& help) {
  add_repeatable(app, "--spatial-ref", "X,Y|X1,Y1,X2,Y2", help, [&raw](const std::string& text) {
    Result<SpatialRef> ref = parse_spatial_ref(text);
    if (!ref.ok()) return Status(ref.error());
    raw.spatial_refs.push_back(*ref);
    return Status();
  });
}

void add_annotate_option(CLI::App& app, RawArgs& raw) {
  add_value(app, "--annotate", "OUT.png", "Write the picture with what was found drawn on it",
            [&raw](const std::string& text) {
              if (text.empty()) return Status(usage("the file's name is empty"));
              raw.annotate = text;
              return Status();
            });
}

void add_also_option(CLI::App& app, RawArgs& raw, const std::string& help) {
  add_repeatable(app, "--also", "TEXT", help, [&raw](const std::string& text) {
    raw.more_texts.push_back(text);
    return Status();
  });
}

// For the skills whose answers differ from one seed to the next.
void add_answers_option(CLI::App& app, RawArgs& raw) {
  add_integer(app, "-n,--n", 1, "So many answers, with the seeds N, N+1, ... of --seed",
              [&raw](int value) { raw.num_answers = value; })
      ->group("Choosing words");
}

void add_request_options(CLI::App& app, RawArgs& raw) {
  app.add_flag("--json", raw.json, "Print JSON instead of text, one object for each answer");
  app.add_flag("--tokens", raw.tokens, "With --json: list the ids of all generated tokens");
  app.add_flag("--no-exif", raw.no_exif,
               "Leave the picture as stored, whatever its EXIF data says");
  add_model_options(app, raw.model);
  add_sampling_options(app, raw.sampling);
}

CLI::App& add_caption(CLI::App& app, RawArgs& raw) {
  CLI::App& sub = *app.add_subcommand("caption", "Describe a picture");
  add_picture_argument(sub, raw);
  add_value(sub, "--length", "LENGTH", "short, normal or long",
            one_of<CaptionLength>({{"short", CaptionLength::kShort},
                                   {"normal", CaptionLength::kNormal},
                                   {"long", CaptionLength::kLong}},
                                  raw.length));
  sub.add_flag("--stream", raw.stream, "Print the words as they come");
  add_request_options(sub, raw);
  add_word_options(sub, raw.sampling);
  add_answers_option(sub, raw);
  sub.footer(
      "Examples:\n"
      "  fovea caption photo.jpg --model ~/moondream2\n"
      "  fovea caption photo.jpg --length short --json\n"
      "  curl -s https://example.com/photo.jpg | fovea caption -");
  return sub;
}

CLI::App& add_query(CLI::App& app, RawArgs& raw) {
  CLI::App& sub = *app.add_subcommand("query", "Ask a question about a picture, or without one");
  add_picture_argument(sub, raw);
  sub.add_option("QUESTION", raw.text, "The question, in quotes");
  sub.add_flag("--no-picture", raw.no_picture, "Ask without a picture: only QUESTION follows");
  add_also_option(sub, raw, "A further question about the same picture");
  sub.add_flag("--reasoning", raw.reasoning, "Let the model think first, and show its thoughts");
  add_spatial_ref_option(sub, raw, "A place that the question is about, as fractions 0..1");
  add_value(sub, "--json-schema", "FILE|TEXT",
            "Answer with JSON of this schema; see docs/skills.md", [&raw](const std::string& text) {
              raw.json_schema = text;
              return Status();
            });
  add_annotate_option(sub, raw);
  sub.add_flag("--stream", raw.stream, "Print the words as they come");
  add_request_options(sub, raw);
  add_word_options(sub, raw.sampling);
  add_answers_option(sub, raw);
  sub.footer(
      "Examples:\n"
      "  fovea query photo.jpg \"How many people are there?\"\n"
      "  fovea query photo.jpg \"Who is this?\" --spatial-ref 0.4,0.3 --reasoning\n"
      "  fovea query photo.jpg \"How many people?\" --also \"What is the weather?\"\n"
      "  fovea query photo.jpg \"Describe the mood.\" -n 3 --temperature 0.8\n"
      "  fovea query photo.jpg \"Colour and count of the cars, as JSON\" --json-schema cars.json\n"
      "  fovea query --no-picture \"What is a crescent?\"");
  return sub;
}

CLI::App& add_detect(CLI::App& app, RawArgs& raw) {
  CLI::App& sub = *app.add_subcommand("detect", "Find boxes around things");
  add_picture_argument(sub, raw);
  sub.add_option("THING", raw.text, "What to look for, in quotes: \"red car\"");
  add_also_option(sub, raw, "A further thing to look for");
  add_max_objects_option(sub, raw);
  add_annotate_option(sub, raw);
  add_request_options(sub, raw);
  sub.footer(
      "Boxes are fractions of the picture's width and height, from its top left corner.\n\n"
      "Examples:\n"
      "  fovea detect photo.jpg \"red car\"\n"
      "  fovea detect photo.jpg person --annotate people.png --json\n"
      "  fovea detect photo.jpg person --also dog --also \"shopping bag\"");
  return sub;
}

CLI::App& add_point(CLI::App& app, RawArgs& raw) {
  CLI::App& sub = *app.add_subcommand("point", "Find a point on each thing");
  add_picture_argument(sub, raw);
  sub.add_option("THING", raw.text, "What to point at, in quotes: \"red car\"");
  add_also_option(sub, raw, "A further thing to point at");
  add_max_objects_option(sub, raw);
  add_spatial_ref_option(sub, raw, "A place that THING is about, as fractions 0..1");
  add_annotate_option(sub, raw);
  add_request_options(sub, raw);
  sub.footer(
      "Points are fractions of the picture's width and height, from its top left corner.\n"
      "THING \"gaze\" with a --spatial-ref on a face points at what that person looks at.\n\n"
      "Examples:\n"
      "  fovea point photo.jpg \"door handle\"\n"
      "  fovea point photo.jpg gaze --spatial-ref 0.41,0.22");
  return sub;
}

CLI::App& add_info(CLI::App& app, RawArgs& raw) {
  CLI::App& sub = *app.add_subcommand("info", "Show devices, and a model's size and memory");
  sub.add_flag("--json", raw.json, "Print one JSON object instead of text");
  add_model_options(sub, raw.model);
  sub.footer(
      "Examples:\n"
      "  fovea info\n"
      "  fovea info --model ~/moondream2 --dtype bf16");
  return sub;
}

std::string trimmed(const std::string& text) {
  constexpr const char* kBlanks = " \t\r\n\f\v";
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

Status check_counts(const RawArgs& raw) {
  if (Status status = check_sampling_counts(raw.sampling); !status.ok()) return status;
  if (raw.num_answers > kMaxAnswers) return usage(fmt::format("-n goes up to {}", kMaxAnswers));
  if (raw.more_texts.size() >= kMaxTexts) {
    return usage(fmt::format("--also can be given {} times at most", kMaxTexts - 1));
  }
  if (raw.spatial_refs.size() > kMaxSpatialRefs) {
    return usage(fmt::format("--spatial-ref can be given {} times at most", kMaxSpatialRefs));
  }
  return {};
}

// What goes together, and what does not.
Status check_combinations(const RawArgs& raw) {
  if (raw.no_picture && !raw.spatial_refs.empty()) {
    return usage("--spatial-ref needs a picture");
  }
  if (raw.no_picture && !raw.annotate.empty()) return usage("--annotate needs a picture");
  if (!raw.annotate.empty() && std::filesystem::path(raw.annotate).extension() != ".png") {
    return usage("--annotate writes a PNG file: its name must end in .png");
  }
  if (raw.tokens && !raw.json) return usage("--tokens needs --json");
  if (raw.sampling.top_logprobs && !raw.json) return usage("--logprobs needs --json");
  if (raw.num_answers > 1 && raw.stream) return usage("--stream prints one answer: leave out -n");
  if (!raw.more_texts.empty() && raw.stream) {
    return usage("--stream prints one answer: leave out --also");
  }
  if (raw.num_answers > 1 && !raw.annotate.empty()) {
    return usage("--annotate draws one answer: leave out -n");
  }
  return {};
}

Status check_words(const std::string& command, RawArgs& raw) {
  if (command == "query" && raw.no_picture) {
    // The one word that was given landed in the first place.
    if (!raw.text.empty()) return usage("--no-picture takes a QUESTION and no PICTURE");
    std::swap(raw.picture, raw.text);
  } else if (raw.picture.empty()) {
    return usage("a PICTURE is missing");
  }
  if (command != "caption" && trimmed(raw.text).empty()) {
    return usage(command == "query" ? "a QUESTION is missing" : "a THING to look for is missing");
  }
  if (replace_bad_utf8(raw.text) != raw.text) {
    return usage(command == "query" ? "the QUESTION is not UTF-8" : "the THING is not UTF-8");
  }
  for (const std::string& text : raw.more_texts) {
    if (trimmed(text).empty()) return usage("the text of --also is empty");
    if (replace_bad_utf8(text) != text) return usage("the text of --also is not UTF-8");
  }
  return {};
}

SkillRequest make_skill(const std::string& command, const RawArgs& raw, const std::string& text) {
  if (command == "caption") return CaptionRequest{raw.length};
  if (command == "query") {
    return QueryRequest{trimmed(text), raw.reasoning, raw.spatial_refs, {}};
  }
  if (command == "detect") return DetectRequest{trimmed(text), raw.max_objects};
  return PointRequest{trimmed(text), raw.max_objects, raw.spatial_refs};
}

SkillArgs make_skill_args(const std::string& command, RawArgs raw) {
  SkillArgs args;
  args.skills.push_back(make_skill(command, raw, raw.text));
  for (const std::string& text : raw.more_texts) {
    args.skills.push_back(make_skill(command, raw, text));
  }
  args.num_answers = raw.num_answers;
  args.json_schema = std::move(raw.json_schema);
  args.model = std::move(raw.model);
  EngineOptions& options = args.model.options;
  const int total = static_cast<int>(args.skills.size()) * args.num_answers;
  options.max_sequences = std::min(total, kMaxSequences);
  options.max_queue = std::max(options.max_queue, total);
  options.keep_prefixes = false;  // nothing comes after these answers
  if (total == 1) options.image_cache_bytes = 0;
  auto& adapters = options.adapters;
  if (adapters.size() > 1) adapters.erase(adapters.begin(), adapters.end() - 1);
  args.sampling = std::move(raw.sampling);
  if (!raw.no_picture) args.picture = PictureSource{std::move(raw.picture)};
  args.apply_exif = !raw.no_exif;
  args.stream = raw.stream;
  args.json = raw.json;
  args.tokens = raw.tokens;
  if (!raw.annotate.empty()) args.annotate = std::move(raw.annotate);
  return args;
}

PrintAndExit usage_error(const std::string& message, const std::string& command) {
  PrintAndExit result;
  result.exit_code = kExitUsage;
  result.err = fmt::format("fovea: {}\nTry: fovea {}--help\n", message,
                           command.empty() ? "" : command + " ");
  return result;
}

CLI::App& add_bench(CLI::App& app, RawArgs& raw) { return add_bench_command(app, raw.bench); }

CLI::App& add_batch(CLI::App& app, RawArgs& raw) { return add_batch_command(app, raw.batch); }

bool has_command(const CLI::App& app, const std::string& name) {
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  return std::any_of(commands.begin(), commands.end(),
                     [&name](const CLI::App* command) { return command->get_name() == name; });
}

}  // namespace

ParsedArgs parse_args(std::span<const std::string> args) {
  RawArgs raw;
  CLI::App app("Asks a Moondream vision-language model about pictures, on this machine.", "fovea");
  app.set_version_flag("--version", fmt::format("fovea {}", version()));
  app.require_subcommand(1);
  const auto formatter = std::make_shared<HelpFormatter>();
  formatter->column_width(34);
  formatter->label("Positionals", "Arguments");
  formatter->label("SUBCOMMAND", "COMMAND ...");
  app.formatter(formatter);  // commands added from here on take it over
  for (const auto add :
       {add_caption, add_query, add_detect, add_point, add_batch, add_info, add_bench}) {
    add(app, raw).group("Commands");
  }
  add_pull(app, raw.pull).group("Commands");
  add_models(app, raw.models).group("Commands");
  add_serve(app, *raw.serve).group("Commands");
  app.footer(
      "Examples:\n"
      "  fovea caption photo.jpg --model ~/moondream2\n"
      "  fovea query photo.jpg \"What is the man holding?\"\n"
      "  fovea detect photo.jpg dog --annotate dogs.png\n"
      "  fovea query --help\n\n"
      "Exit codes: 0 answered, 1 the request failed, 2 wrong usage.");

  if (args.empty()) return PrintAndExit{kExitUsage, {}, app.help()};
  if (!args[0].starts_with('-') && !has_command(app, args[0])) {
    return usage_error(fmt::format("there is no command '{}'", args[0]), "");
  }
  std::string command;
  try {
    // CLI11 takes the arguments last first.
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
    command = app.get_subcommands().front()->get_name();
  } catch (const CLI::CallForHelp&) {
    return PrintAndExit{kExitOk, app.help(), {}};
  } catch (const CLI::CallForVersion& request) {
    return PrintAndExit{kExitOk, std::string(request.what()) + "\n", {}};
  } catch (const CLI::ParseError& error) {
    const auto commands = app.get_subcommands();
    return usage_error(usage_message(error, app),
                       commands.empty() ? "" : commands.front()->get_name());
  }
  if (command == "bench") {
    Result<BenchServeArgs> bench = make_bench_args(std::move(raw.bench));
    if (!bench.ok()) return usage_error(bench.error().message, "bench serve");
    return std::move(bench).value();
  }
  if (command == "batch") {
    Result<BatchArgs> batch = make_batch_args(std::move(raw.batch));
    if (!batch.ok()) return usage_error(batch.error().message, command);
    return std::move(batch).value();
  }
  if (command == "pull") return std::move(raw.pull);
  if (command == "models") return std::move(raw.models);
  if (command == "serve") return std::move(raw.serve);
  if (command == "info") {
    raw.model.options.max_sequences = 1;  // what it tells holds for the commands that ask once
    raw.model.options.keep_prefixes = false;
    return InfoArgs{std::move(raw.model), raw.json};
  }
  for (const Status& status :
       {check_words(command, raw), check_counts(raw), check_combinations(raw)}) {
    if (!status.ok()) return usage_error(status.error().message, command);
  }
  return make_skill_args(command, std::move(raw));
}

}  // namespace fovea::cli
