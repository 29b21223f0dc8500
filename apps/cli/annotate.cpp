#include "annotate.h"

#include <fmt/format.h>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "fovea/picture.h"

#include "files.h"
#include "grounding.h"

namespace fovea::cli {
namespace {

struct Labels {
  std::vector<BoxLabel> boxes;
  std::vector<PointLabel> points;
};

void add_labels(const SkillRequest& skill, const Response& response, Labels& labels) {
  if (const auto* detect = std::get_if<DetectRequest>(&skill)) {
    for (const Box& box : response.boxes) {
      labels.boxes.push_back({box.x_min, box.y_min, box.x_max, box.y_max,
                              fmt::format("{} {:.2f}", detect->object, box.confidence)});
    }
  }
  if (const auto* point = std::get_if<PointRequest>(&skill)) {
    for (const Point& found : response.points) {
      labels.points.push_back({found.x, found.y, point->object});
    }
  }
  if (!response.reasoning) return;
  for (const Grounding& span : response.reasoning->grounding) {
    for (const Point& point : span.points) {
      labels.points.push_back(
          {point.x, point.y, std::string(grounded_text(*response.reasoning, span))});
    }
  }
}

Result<Image> decoded(const Request& request, const PictureLimits& limits) {
  if (request.picture->image() != nullptr) return *request.picture->image();
  return decode_picture(*request.picture->file(), limits, request.apply_exif);
}

}  // namespace

Result<std::vector<std::byte>> annotated_png(Image image, std::span<const Finding> findings) {
  Labels labels;
  for (const Finding& finding : findings) add_labels(finding.skill, finding.response, labels);
  draw_labels(image, labels.boxes, labels.points);
  return encode_png(image);
}

Status annotate(const Request& request, std::span<const Finding> findings,
                const PictureLimits& limits, const std::filesystem::path& out) {
  if (!request.picture) {
    return Error{ErrorCode::kInvalidArgument, "there is no picture to draw on"};
  }
  Result<Image> image = decoded(request, limits);
  if (!image.ok()) return std::move(image).error();
  Result<std::vector<std::byte>> png = annotated_png(std::move(image).value(), findings);
  if (!png.ok()) return std::move(png).error();
  return write_file(out, *png);
}

}  // namespace fovea::cli
