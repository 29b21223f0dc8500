#include "batch_options.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fmt/format.h>
#include <utility>

#include "options.h"
#include "utf8.h"
#include "values.h"

namespace fovea::cli {
namespace {

using Skill = RawBatchArgs::Skill;

constexpr std::size_t kMaxTextsOfBatch = 256;
constexpr std::string_view kPictures = "Pictures";
constexpr std::string_view kOutputs = "Outputs";

template <class Path>
void add_path(CLI::App& app, const char* name, const char* placeholder, const char* help,
              Path& target) {
  add_value(app, name, placeholder, help, [&target](const std::string& text) {
    if (text.empty()) return Status(usage("the name is empty"));
    target = std::filesystem::path(text);
    return Status();
  })->group(std::string(kOutputs));
}

void add_picture_options(CLI::App& sub, RawBatchArgs& raw) {
  sub.add_option("PATHS", raw.args.paths,
                 "Pictures, folders of pictures, patterns in quotes (\"in/*.jpg\"), @LIST");
  sub.add_flag("-r,--recursive", raw.args.recursive, "Also the folders within folders")
      ->group(std::string(kPictures));
  add_repeatable(sub, "--list", "FILE", "A file that names one path a line; - reads standard input",
                 [&raw](const std::string& text) {
                   raw.args.lists.push_back(text);
                   return Status();
                 })
      ->group(std::string(kPictures));
  sub.add_flag("--no-exif", raw.no_exif,
               "Leave the pictures as stored, whatever their EXIF data says")
      ->group(std::string(kPictures));
}

void add_question_options(CLI::App& sub, RawBatchArgs& raw) {
  add_value(sub, "--skill", "SKILL", "caption, query, detect or point",
            [&raw](const std::string& text) {
              Skill skill = Skill::kCaption;
              Status status = one_of<Skill>({{"caption", Skill::kCaption},
                                             {"query", Skill::kQuery},
                                             {"detect", Skill::kDetect},
                                             {"point", Skill::kPoint}},
                                            skill)(text);
              if (status.ok()) raw.skill = skill;
              return status;
            });
  add_repeatable(sub, "--text", "TEXT", "The question, or the thing to look for",
                 [&raw](const std::string& text) {
                   raw.texts.push_back(text);
                   return Status();
                 });
  add_value(sub, "--length", "LENGTH", "Of captions: short, normal or long",
            [&raw](const std::string& text) {
              CaptionLength length = CaptionLength::kNormal;
              Status status = one_of<CaptionLength>({{"short", CaptionLength::kShort},
                                                     {"normal", CaptionLength::kNormal},
                                                     {"long", CaptionLength::kLong}},
                                                    length)(text);
              if (status.ok()) raw.length = length;
              return status;
            });
  sub.add_flag("--reasoning", raw.reasoning, "Of queries: let the model think first");
  add_integer(
      sub, "--max-objects", 1, "Of detect and point: list this many at most",
      [&raw](int value) { raw.max_objects = value; }, kMaxObjects);
  add_repeatable(sub, "--spatial-ref", "X,Y|X1,Y1,X2,Y2",
                 "Of queries and point: a place that the text is about, as fractions 0..1",
                 [&raw](const std::string& text) {
                   Result<SpatialRef> ref = parse_spatial_ref(text);
                   if (!ref.ok()) return Status(ref.error());
                   raw.spatial_refs.push_back(*ref);
                   return Status();
                 });
  add_value(sub, "--json-schema", "FILE|TEXT", "Of queries: answer with JSON of this schema",
            [&raw](const std::string& text) {
              raw.args.json_schema = text;
              return Status();
            });
  for (const char* name : {"--skill", "--text", "--length", "--reasoning", "--max-objects",
                           "--spatial-ref", "--json-schema"}) {
    sub.get_option(name)->group("Question");
  }
}

void add_output_options(CLI::App& sub, RawBatchArgs& raw) {
  add_path(sub, "--out", "FILE.jsonl", "The answers, and where a later run goes on", raw.args.out);
  add_path(sub, "--csv", "FILE.csv", "Also a table", raw.args.csv);
  add_path(sub, "--coco", "FILE.json", "Also a COCO data set (detect)", raw.args.coco);
  add_path(sub, "--yolo", "DIR", "Also a YOLO data set (detect)", raw.args.yolo);
  add_path(sub, "--annotate", "DIR", "Also copies with what was found drawn on them",
           raw.args.annotate);
  sub.add_flag("--sidecar", raw.args.sidecar,
               "Also photo.txt beside photo.jpg (caption, query with one --text)");
  sub.add_flag("--tokens", raw.args.tokens, "In FILE.jsonl: list the ids of all generated tokens");
  sub.add_flag("--overwrite", raw.args.overwrite,
               "Begin anew: forget the answers in FILE.jsonl, replace older outputs");
  sub.add_flag("--dry-run", raw.args.dry_run, "List what would be done, and write nothing");
  for (const char* name : {"--sidecar", "--tokens", "--overwrite", "--dry-run"}) {
    sub.get_option(name)->group(std::string(kOutputs));
  }
}

Status check_texts(Skill skill, const RawBatchArgs& raw) {
  if (skill == Skill::kCaption) {
    return raw.texts.empty() ? Status() : usage("a caption takes no --text");
  }
  if (raw.texts.empty()) return usage("--text is missing: the question, or the thing to look for");
  if (raw.texts.size() > kMaxTextsOfBatch) {
    return usage(fmt::format("--text can be given {} times at most", kMaxTextsOfBatch));
  }
  for (const std::string& text : raw.texts) {
    if (text.empty()) return usage("a --text is empty");
    if (replace_bad_utf8(text) != text) return usage("a --text is not UTF-8");
  }
  for (auto text = raw.texts.begin(); text != raw.texts.end(); ++text) {
    if (std::find(raw.texts.begin(), text, *text) != text) {
      return usage(fmt::format("--text \"{}\" is given twice", *text));
    }
  }
  return {};
}

Status check_outputs(Skill skill, const RawBatchArgs& raw) {
  const BatchArgs& args = raw.args;
  const bool writes_text = skill == Skill::kCaption || skill == Skill::kQuery;
  if (args.out.empty()) return usage("--out FILE.jsonl is missing");
  if ((args.coco || args.yolo) && skill != Skill::kDetect) {
    return usage("--coco and --yolo need --skill detect");
  }
  if (args.annotate && writes_text && !raw.reasoning) {
    return usage("--annotate needs detect, point, or query with --reasoning");
  }
  if (args.sidecar && (!writes_text || raw.texts.size() > 1)) {
    return usage("--sidecar needs caption, or query with one --text");
  }
  std::vector<std::filesystem::path> names{args.out};
  for (const auto& name : {args.csv, args.coco, args.yolo, args.annotate}) {
    if (name) names.push_back(name->lexically_normal());
  }
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end()) {
    return usage(fmt::format("{} is named for two outputs", twice->string()));
  }
  return {};
}

Status check_together(const RawBatchArgs& raw) {
  if (raw.args.paths.empty() && raw.args.lists.empty()) {
    return usage("PATHS are missing: pictures, folders, patterns or @LIST");
  }
  if (!raw.skill) return usage("--skill is missing: caption, query, detect or point");
  const Skill skill = *raw.skill;
  if (Status status = check_texts(skill, raw); !status.ok()) return status;
  if (raw.length && skill != Skill::kCaption) return usage("--length needs --skill caption");
  if (raw.reasoning && skill != Skill::kQuery) return usage("--reasoning needs --skill query");
  if (raw.max_objects && skill != Skill::kDetect && skill != Skill::kPoint) {
    return usage("--max-objects needs --skill detect or point");
  }
  if (!raw.spatial_refs.empty() && skill != Skill::kQuery && skill != Skill::kPoint) {
    return usage("--spatial-ref needs --skill query or point");
  }
  if (raw.args.json_schema && skill != Skill::kQuery) {
    return usage("--json-schema needs --skill query");
  }
  if (!raw.args.sampling.stop.empty() && (skill == Skill::kDetect || skill == Skill::kPoint)) {
    return usage("--stop needs --skill caption or query");
  }
  if (Status status = check_sampling_counts(raw.args.sampling); !status.ok()) return status;
  return check_outputs(skill, raw);
}

SkillRequest make_question(const RawBatchArgs& raw, const std::string& text) {
  switch (*raw.skill) {
    case Skill::kCaption:
      return CaptionRequest{raw.length.value_or(CaptionLength::kNormal)};
    case Skill::kQuery:
      return QueryRequest{
          .question = text, .reasoning = raw.reasoning, .spatial_refs = raw.spatial_refs};
    case Skill::kDetect:
      return DetectRequest{text, raw.max_objects};
    case Skill::kPoint:
      return PointRequest{text, raw.max_objects, raw.spatial_refs};
  }
  return CaptionRequest{};
}

}  // namespace

CLI::App& add_batch_command(CLI::App& app, RawBatchArgs& raw) {
  CLI::App& sub =
      *app.add_subcommand("batch", "Ask about many pictures, and go on where it stopped");
  add_picture_options(sub, raw);
  add_question_options(sub, raw);
  add_output_options(sub, raw);
  add_model_options(sub, raw.args.model);
  add_engine_options(sub, raw.args.model.options);
  add_sampling_options(sub, raw.args.sampling);
  add_word_options(sub, raw.args.sampling);
  sub.footer(
      "Examples:\n"
      "  fovea batch photos --skill caption --out captions.jsonl --sidecar\n"
      "  fovea batch photos -r --skill detect --text car --text dog --out found.jsonl --yolo set\n"
      "  fovea batch @list.txt --skill query --text \"Is it raining?\" --out rain.jsonl --csv "
      "rain.csv\n\n"
      "Exit codes: 0 all answered, 1 some were not, 2 wrong usage, 130 interrupted.");
  return sub;
}

Result<BatchArgs> make_batch_args(RawBatchArgs raw) {
  if (Status status = check_together(raw); !status.ok()) return status.error();
  BatchArgs& args = raw.args;
  if (raw.texts.empty()) raw.texts.emplace_back();
  for (const std::string& text : raw.texts) args.questions.push_back(make_question(raw, text));
  args.apply_exif = !raw.no_exif;
  if (args.questions.size() == 1) {
    // Each picture is asked about once: nothing that was computed for one is needed again.
    args.model.options.keep_prefixes = false;
    if (args.model.options.image_cache_folder.empty()) args.model.options.image_cache_bytes = 0;
  }
  return std::move(args);
}

}  // namespace fovea::cli
