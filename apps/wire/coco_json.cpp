#include "coco_json.h"

#include <algorithm>
#include <fmt/format.h>

#include "json_text.h"

namespace fovea::wire {
void CocoWriter::add_image(std::string_view file_name, int width, int height,
                           std::span<const CocoFindings> findings) {
  images_ += fmt::format(R"({}{{"id":{},"file_name":{},"width":{},"height":{}}})",
                         num_images_ == 0 ? "" : ",\n", num_images_ + 1, json_string(file_name),
                         width, height);
  ++num_images_;
  for (const CocoFindings& found : findings) {
    for (const Box& box : found.boxes) {
      const double left = std::clamp(box.x_min, 0.0, 1.0) * width;
      const double top = std::clamp(box.y_min, 0.0, 1.0) * height;
      const double across = std::max(std::clamp(box.x_max, 0.0, 1.0) * width - left, 0.0);
      const double down = std::max(std::clamp(box.y_max, 0.0, 1.0) * height - top, 0.0);
      annotations_ += fmt::format(
          R"({}{{"id":{},"image_id":{},"category_id":{},"bbox":[{:.3f},{:.3f},{:.3f},{:.3f}],)"
          R"("area":{:.3f},"iscrowd":0,"segmentation":[],"score":{:.4f}}})",
          num_annotations_ == 0 ? "" : ",\n", num_annotations_ + 1, num_images_,
          found.category_idx + 1, left, top, across, down, across * down, box.confidence);
      ++num_annotations_;
    }
  }
}

std::string CocoWriter::finish(std::string_view description) const {
  std::string categories;
  for (std::size_t i = 0; i < categories_.size(); ++i) {
    categories += fmt::format(R"({}{{"id":{},"name":{},"supercategory":""}})", i == 0 ? "" : ",\n",
                              i + 1, json_string(categories_[i]));
  }
  return fmt::format(
      "{{\"info\":{{\"description\":{}}},\n\"licenses\":[],\n\"images\":[\n{}\n],\n"
      "\"annotations\":[\n{}\n],\n\"categories\":[\n{}\n]}}\n",
      json_string(description), images_, annotations_, categories);
}

}  // namespace fovea::wire
