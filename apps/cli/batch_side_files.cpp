#include "batch_side_files.h"

#include <algorithm>
#include <fmt/format.h>
#include <system_error>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "annotate.h"
#include "files.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

std::vector<fs::path> annotated_names(const fs::path& folder, const BatchPictures& pictures) {
  const auto short_name = [](const PictureFile& file) {
    return fs::path(file.name).replace_extension(".png");
  };
  std::unordered_map<std::string, int> uses;
  for (const PictureFile& file : pictures.files) ++uses[short_name(file).string()];
  std::vector<fs::path> names;
  for (const PictureFile& file : pictures.files) {
    const fs::path name = short_name(file);
    names.push_back(folder / (uses[name.string()] == 1 ? name : fs::path(file.name + ".png")));
  }
  return names;
}

// Copies among the pictures would take their places, or be pictures of the next run.
Status check_copies(std::span<const fs::path> names, const BatchPictures& pictures) {
  std::unordered_set<std::string> folders;
  for (const PictureFile& file : pictures.files) {
    if (!file.problem) folders.insert(file.real.parent_path().string());
  }
  for (const fs::path& name : names) {
    std::error_code error;
    const fs::path folder = fs::weakly_canonical(fs::absolute(name.parent_path()), error);
    if (!error && folders.contains(folder.string())) {
      return refused(fmt::format("{} would lie among the pictures; give --annotate another folder",
                                 name.string()));
    }
  }
  return {};
}

Status check_sidecars(std::span<const fs::path> names, const BatchArgs& args,
                      const BatchPictures& pictures, const BatchJournal& journal) {
  std::unordered_map<std::string, std::size_t> owners;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == fs::path(pictures.files[i].path)) {
      return refused(fmt::format("{} is a picture of the batch itself", names[i].string()));
    }
    const auto [owner, is_new] = owners.emplace(names[i].string(), i);
    if (!is_new) {
      return refused(fmt::format("{} and {} would both be described in {}",
                                 pictures.files[owner->second].path, pictures.files[i].path,
                                 names[i].string()));
    }
    if (!args.overwrite && !journal.has(i, 0) && is_there(names[i])) {
      return refused(
          fmt::format("{} is there already; --overwrite replaces it", names[i].string()));
    }
  }
  return {};
}

std::string sidecar_text(const Response& response) {
  std::string text = response.text;
  // Answers begin with the blank that parted them from the prompt.
  text.erase(0, std::min(text.find_first_not_of(' '), text.size()));
  return text + '\n';
}

}  // namespace

Result<BatchSideFiles> BatchSideFiles::plan(const BatchArgs& args, const BatchPictures& pictures,
                                            const BatchJournal& journal) {
  BatchSideFiles files;
  files.annotated_.resize(pictures.files.size());
  files.sidecars_.resize(pictures.files.size());
  if (args.annotate) {
    files.annotated_ = annotated_names(*args.annotate, pictures);
    Status status = check_copies(files.annotated_, pictures);
    if (!status.ok()) return status.error();
  }
  if (args.sidecar) {
    for (std::size_t i = 0; i < pictures.files.size(); ++i) {
      files.sidecars_[i] = fs::path(pictures.files[i].path).replace_extension(".txt");
    }
    Status status = check_sidecars(files.sidecars_, args, pictures, journal);
    if (!status.ok()) return status.error();
  }
  return files;
}

bool BatchSideFiles::is_missing(std::size_t picture_idx) const {
  const auto missing = [](const fs::path& name) { return !name.empty() && !is_there(name); };
  return missing(annotated_[picture_idx]) || missing(sidecars_[picture_idx]);
}

Status BatchSideFiles::write(std::size_t picture_idx, const Image* image,
                             std::span<const SkillRequest> questions,
                             std::span<const Response> responses, Which which) const {
  const auto is_wanted = [which](const fs::path& name) {
    return !name.empty() && (which == Which::kAll || !is_there(name));
  };
  if (const fs::path& name = sidecars_[picture_idx]; is_wanted(name)) {
    const std::string text = sidecar_text(responses.front());
    if (Status status = replace_file(name, std::as_bytes(std::span(text))); !status.ok()) {
      return status;
    }
  }
  const fs::path& name = annotated_[picture_idx];
  if (!is_wanted(name) || image == nullptr) return {};
  std::vector<Finding> findings;
  findings.reserve(questions.size());
  for (std::size_t i = 0; i < questions.size(); ++i) {
    findings.push_back({questions[i], responses[i]});
  }
  const Result<std::vector<std::byte>> png = annotated_png(*image, findings);
  if (!png.ok()) return png.error();
  std::error_code error;
  fs::create_directories(name.parent_path(), error);
  if (error) {
    return Error{ErrorCode::kIo, fmt::format("cannot make the folder {}: {}",
                                             name.parent_path().string(), error.message())};
  }
  return replace_file(name, *png);
}

}  // namespace fovea::cli
