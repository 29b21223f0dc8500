#include "batch_export.h"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "fovea/picture.h"

#include "batch_csv.h"
#include "batch_question.h"
#include "files.h"
#include "wire/coco_json.h"
#include "wire/json_text.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

Status write_text(const fs::path& path, std::string_view text) {
  return replace_file(path, std::as_bytes(std::span(text)));
}

Status make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error) return {};
  return Error{ErrorCode::kIo,
               fmt::format("cannot make the folder {}: {}", folder.string(), error.message())};
}

bool is_answered(const BatchExport& what, std::size_t picture_idx) {
  for (std::size_t i = 0; i < what.args.questions.size(); ++i) {
    if (!what.journal.has(picture_idx, i)) return false;
  }
  return true;
}

// All answers about one picture, in the order of the questions.
struct Answers {
  std::vector<Response> responses;
  int width = 0, height = 0;  // 0 when not known
};

Result<Answers> read_answers(const BatchExport& what, std::size_t picture_idx) {
  Answers answers;
  for (std::size_t i = 0; i < what.args.questions.size(); ++i) {
    Result<wire::BatchRecord> record = what.journal.read(picture_idx, i);
    if (!record.ok()) return std::move(record).error();
    if (record->width > 0) {
      answers.width = record->width;
      answers.height = record->height;
    }
    answers.responses.push_back(std::move(record->answer).value());
  }
  return answers;
}

// Runs without --coco leave the size out.
Status find_size(const BatchExport& what, const PictureFile& file, Answers& answers) {
  if (answers.width > 0) return {};
  const PictureLimits& limits = what.args.model.options.picture_limits;
  Result<std::vector<std::byte>> bytes = read_file(file.real, limits.max_bytes);
  if (!bytes.ok()) return bytes.error();
  const Result<Image> image = decode_picture(*bytes, limits, what.args.apply_exif);
  if (!image.ok()) {
    return Error{image.error().code, fmt::format("{}: {}", file.path, image.error().message)};
  }
  answers.width = image->width;
  answers.height = image->height;
  return {};
}

Status write_coco(const BatchExport& what) {
  std::vector<std::string> categories;
  categories.reserve(what.args.questions.size());
  for (const SkillRequest& question : what.args.questions) categories.push_back(text_of(question));
  wire::CocoWriter coco(std::move(categories));
  for (std::size_t i = 0; i < what.pictures.files.size(); ++i) {
    if (!is_answered(what, i)) continue;
    Result<Answers> answers = read_answers(what, i);
    if (!answers.ok()) return answers.error();
    const PictureFile& file = what.pictures.files[i];
    if (Status status = find_size(what, file, *answers); !status.ok()) return status;
    std::vector<wire::CocoFindings> findings;
    findings.reserve(answers->responses.size());
    for (std::size_t category = 0; category < answers->responses.size(); ++category) {
      findings.push_back(
          {static_cast<int>(category), std::move(answers->responses[category].boxes)});
    }
    coco.add_image(file.name, answers->width, answers->height, findings);
  }
  return write_text(*what.args.coco, coco.finish(fmt::format("fovea {}", version())));
}

// images/ holds links, so that the folder is a data set without holding the pictures twice.
Status link_picture(const fs::path& link, const fs::path& picture) {
  std::error_code error;
  if (fs::is_symlink(fs::symlink_status(link, error))) fs::remove(link, error);
  fs::create_symlink(picture, link, error);
  if (!error) return {};
  return Error{ErrorCode::kIo, fmt::format("cannot link {}: {}", link.string(), error.message())};
}

std::string yolo_yaml(const std::vector<std::string>& classes) {
  // A text in double quotes with JSON's escapes reads the same in YAML.
  std::string text = "train: images\nval: images\nnames:\n";
  for (std::size_t i = 0; i < classes.size(); ++i) {
    text += fmt::format("  {}: {}\n", i, wire::json_string(classes[i]));
  }
  return text;
}

std::string yolo_classes(std::vector<std::string> classes) {
  std::string text;
  for (std::string& name : classes) {
    std::ranges::replace_if(
        name, [](char c) { return c == '\n' || c == '\r'; }, ' ');
    text += name + '\n';
  }
  return text;
}

Status write_yolo(const BatchExport& what) {
  const fs::path& folder = *what.args.yolo;
  for (std::size_t i = 0; i < what.pictures.files.size(); ++i) {
    if (!is_answered(what, i)) continue;
    const PictureFile& file = what.pictures.files[i];
    const Result<Answers> answers = read_answers(what, i);
    if (!answers.ok()) return answers.error();
    const fs::path label = folder / "labels" / fs::path(file.name).replace_extension(".txt");
    const fs::path link = folder / "images" / file.name;
    Status status = make_folder(label.parent_path());
    if (status.ok()) status = make_folder(link.parent_path());
    if (status.ok()) status = link_picture(link, file.real);
    if (status.ok()) status = write_text(label, yolo_labels(answers->responses));
    if (!status.ok()) return status;
  }
  std::vector<std::string> classes;
  classes.reserve(what.args.questions.size());
  for (const SkillRequest& question : what.args.questions) classes.push_back(text_of(question));
  Status status = make_folder(folder);
  if (status.ok()) status = write_text(folder / "data.yaml", yolo_yaml(classes));
  if (status.ok()) status = write_text(folder / "classes.txt", yolo_classes(classes));
  return status;
}

// YOLO finds a picture's labels by its name without the ending.
Status check_label_names(const BatchPictures& pictures) {
  std::vector<std::pair<std::string, const PictureFile*>> names;
  for (const PictureFile& file : pictures.files) {
    if (!file.problem) {
      names.emplace_back(fs::path(file.name).replace_extension().string(), &file);
    }
  }
  std::ranges::sort(names);
  const auto same = std::ranges::adjacent_find(
      names, [](const auto& a, const auto& b) { return a.first == b.first; });
  if (same == names.end()) return {};
  return Error{ErrorCode::kFailedPrecondition,
               fmt::format("{} and {} would share one YOLO label file", same->second->path,
                           std::next(same)->second->path)};
}

// Data sets are built over what was there before only when a journal says that it was a batch.
Status check_target(const fs::path& path, bool is_folder, bool may_replace) {
  std::error_code error;
  const bool is_there =
      is_folder ? fs::exists(path, error) && !fs::is_empty(path, error) : fs::exists(path, error);
  if (is_there && !may_replace) {
    return Error{ErrorCode::kFailedPrecondition,
                 fmt::format("{} is there already; --overwrite replaces it", path.string())};
  }
  if (!is_folder) return check_writable(path);
  if (fs::exists(path, error) && !fs::is_directory(path, error)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} is no folder", path.string())};
  }
  return {};
}

}  // namespace

std::string yolo_labels(std::span<const Response> responses) {
  std::string labels;
  for (std::size_t category = 0; category < responses.size(); ++category) {
    for (const Box& box : responses[category].boxes) {
      const double left = std::clamp(box.x_min, 0.0, 1.0), top = std::clamp(box.y_min, 0.0, 1.0);
      const double right = std::clamp(box.x_max, left, 1.0);
      const double bottom = std::clamp(box.y_max, top, 1.0);
      labels += fmt::format("{} {:.6f} {:.6f} {:.6f} {:.6f}\n", category, (left + right) / 2,
                            (top + bottom) / 2, right - left, bottom - top);
    }
  }
  return labels;
}

Status check_exports(const BatchExport& what) {
  const BatchArgs& args = what.args;
  const bool may_replace = args.overwrite || !what.journal.was_empty();
  Status status;
  for (const auto& file : {args.csv, args.coco}) {
    if (file && status.ok()) status = check_target(*file, /*is_folder=*/false, may_replace);
  }
  if (args.yolo && status.ok()) status = check_target(*args.yolo, /*is_folder=*/true, may_replace);
  if (args.yolo && status.ok()) status = check_label_names(what.pictures);
  // Copies have a folder without pictures of the batch: BatchSideFiles sees to that.
  if (args.annotate && status.ok()) status = check_target(*args.annotate, /*is_folder=*/true, true);
  return status;
}

Status write_exports(const BatchExport& what) {
  Status status;
  if (what.args.csv) {
    const Result<std::string> text = csv_text(what.args, what.pictures, what.journal);
    status = text.ok() ? write_text(*what.args.csv, *text) : text.error();
  }
  if (what.args.coco && status.ok()) status = write_coco(what);
  if (what.args.yolo && status.ok()) status = write_yolo(what);
  return status;
}

}  // namespace fovea::cli
