#include "text_output.h"

#include <algorithm>
#include <cstddef>
#include <fmt/format.h>

#include "grounding.h"

namespace fovea::cli {
namespace {

double percent(double fraction) { return 100 * fraction; }

double mebibytes(std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

std::string boxes_text(const std::string& object, const std::vector<Box>& boxes) {
  if (boxes.empty()) return fmt::format("No {} found.\n", printable(object));
  std::string text = fmt::format("{} x {}\n", boxes.size(), printable(object));
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const Box& box = boxes[i];
    text += fmt::format(
        "{:3}  left {:5.1f} %  top {:5.1f} %  right {:5.1f} %  bottom {:5.1f} %  "
        "confidence {:.2f}\n",
        i + 1, percent(box.x_min), percent(box.y_min), percent(box.x_max), percent(box.y_max),
        box.confidence);
  }
  return text;
}

std::string points_text(const std::string& object, const std::vector<Point>& points) {
  if (points.empty()) return fmt::format("No {} found.\n", printable(object));
  std::string text = fmt::format("{} x {}\n", points.size(), printable(object));
  for (std::size_t i = 0; i < points.size(); ++i) {
    text += fmt::format("{:3}  across {:5.1f} %  down {:5.1f} %  confidence {:.2f}\n", i + 1,
                        percent(points[i].x), percent(points[i].y), points[i].confidence);
  }
  return text;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string clean(text);
  std::erase_if(clean, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f;
  });
  return clean;
}

std::string reasoning_text(const Response& response) {
  if (!response.reasoning) return {};
  std::string text = fmt::format("Thoughts: {}\n", printable(response.reasoning->text));
  for (const Grounding& span : response.reasoning->grounding) {
    text += fmt::format("  \"{}\" is at", printable(grounded_text(*response.reasoning, span)));
    for (const Point& point : span.points) {
      text += fmt::format(" ({:.1f} %, {:.1f} %)", percent(point.x), percent(point.y));
    }
    text += '\n';
  }
  return text;
}

std::string answer_heading(const SkillRequest& skill, std::optional<std::uint64_t> seed) {
  std::string heading;
  if (const auto* query = std::get_if<QueryRequest>(&skill)) heading = printable(query->question);
  if (seed) heading += fmt::format("{}(seed {})", heading.empty() ? "" : " ", *seed);
  return heading;
}

std::string response_text(const SkillRequest& skill, const Response& response) {
  if (const auto* detect = std::get_if<DetectRequest>(&skill)) {
    return boxes_text(detect->object, response.boxes);
  }
  if (const auto* point = std::get_if<PointRequest>(&skill)) {
    return points_text(point->object, response.points);
  }
  // Answers begin with the blank that parted them from the prompt.
  std::string answer = printable(response.text);
  answer.erase(0, std::min(answer.find_first_not_of(' '), answer.size()));
  if (!response.reasoning) return answer + '\n';
  return reasoning_text(response) + "Answer: " + answer + '\n';
}

std::string info_text(std::span<const DeviceReport> devices, const ModelInfo* model) {
  std::string text = fmt::format("fovea {}\n\nDevices\n", version());
  for (const DeviceReport& device : devices) {
    text += fmt::format("  {:8} {:4} {}\n", device.name, device.available ? "yes" : "no",
                        device.description);
  }
  if (model == nullptr) return text;
  text += "\nModel\n";
  text += fmt::format("  family           {}\n", model->family);
  text += fmt::format("  runs on          {} ({})\n", model->device, model->device_description);
  text += fmt::format("  precision        {}\n", model->precision);
  text += fmt::format("  parameters       {:.1f} million\n",
                      static_cast<double>(model->num_parameters) / 1e6);
  text += fmt::format("  vocabulary       {} tokens\n", model->vocab_size);
  text += fmt::format("  context          {} positions, of which a picture takes {}\n",
                      model->max_context, model->image_tokens);
  text += fmt::format("  loaded in        {:.0f} ms\n", model->load_ms);
  text += "\nMemory\n";
  text += fmt::format("  checkpoint file  {:10.1f} MiB\n", mebibytes(model->checkpoint_bytes));
  text += fmt::format("  weights          {:10.1f} MiB\n", mebibytes(model->weight_bytes));
  text += fmt::format("  KV cache         {:10.1f} MiB\n", mebibytes(model->kv_cache_bytes));
  text += fmt::format("  scratch          {:10.1f} MiB\n", mebibytes(model->scratch_bytes));
  return text;
}

}  // namespace fovea::cli
