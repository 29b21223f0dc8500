#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "fovea/request.h"
#include "fovea/response.h"
#include "fovea/result.h"

#include "args.h"
#include "batch_journal.h"
#include "batch_pictures.h"

namespace fovea::cli {

/// The files that a batch writes for each picture: a copy with what was found drawn on it, and the
/// answer as text beside the picture. Each is written whole or not at all. Threads may write
/// different pictures' files at once.
class BatchSideFiles {
 public:
  /// Decides on the names. Errors, before anything is written: copies would lie among the
  /// pictures of the batch, two pictures would share a text file, or a text file is there already
  /// that no answer in the journal explains (unless the arguments allow to overwrite).
  static Result<BatchSideFiles> plan(const BatchArgs& args, const BatchPictures& pictures,
                                     const BatchJournal& journal);

  /// The annotated copy's name: photo.png for photo.jpg, or photo.jpg.png where another picture
  /// would have the same. Empty where none is wanted.
  const std::filesystem::path& annotated(std::size_t picture_idx) const {
    return annotated_[picture_idx];
  }
  /// The text file's; empty where none is wanted.
  const std::filesystem::path& sidecar(std::size_t picture_idx) const {
    return sidecars_[picture_idx];
  }
  /// Whether a wanted file is not there.
  bool is_missing(std::size_t picture_idx) const;

  enum class Which { kAll, kMissing };
  /// `image` holds the pixels where a copy is to be drawn. One response for each question.
  Status write(std::size_t picture_idx, const Image* image, std::span<const SkillRequest> questions,
               std::span<const Response> responses, Which which) const;

 private:
  std::vector<std::filesystem::path> annotated_, sidecars_;  // [pictures]
};

}  // namespace fovea::cli
