#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/response.h"

namespace fovea::wire {

/// What was found of one category.
struct CocoFindings {
  int category_idx = 0;  ///< into the writer's categories
  std::vector<Box> boxes;
};

/// Collects detections as a COCO data set: `images`, `annotations`, `categories`, with boxes as
/// left, top, width and height in pixels. Annotations also carry `score`, which readers of results
/// expect and readers of data sets pass over. Ids count from 1 in the order of the calls.
class CocoWriter {
 public:
  explicit CocoWriter(std::vector<std::string> categories) : categories_(std::move(categories)) {}

  /// One picture of width x height pixels and all that was found in it; boxes are cut at its edges.
  /// `file_name` is UTF-8, from the folder that the data set's reader is told.
  void add_image(std::string_view file_name, int width, int height,
                 std::span<const CocoFindings> findings);

  /// The document, with a newline at its end. `description` says what made it.
  std::string finish(std::string_view description) const;

 private:
  std::vector<std::string> categories_;
  std::string images_, annotations_;  // the items, with commas between them
  int num_images_ = 0, num_annotations_ = 0;
};

}  // namespace fovea::wire
