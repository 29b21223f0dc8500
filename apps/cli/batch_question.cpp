#include "batch_question.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fmt/format.h>
#include <string_view>
#include <system_error>
#include <vector>

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

// FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv: the key tells mistakes apart, not attacks.
std::uint64_t hash(std::string_view text) {
  std::uint64_t state = 0xcbf29ce484222325U;
  for (const char c : text) {
    state ^= static_cast<unsigned char>(c);
    state *= 0x100000001b3U;
  }
  return state;
}

template <class T>
std::string or_none(const std::optional<T>& value) {
  return value ? fmt::format("{}", *value) : "none";
}

// Length first, so that no two different lists of texts are written alike.
std::string counted(std::string_view text) { return fmt::format("{}:{}", text.size(), text); }

std::string file_stamp(const fs::path& file) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(file, error);
  const auto changed = fs::last_write_time(file, error).time_since_epoch();
  return fmt::format(
      "{} {} {};", counted(file.filename().string()), error ? 0 : size,
      error ? 0 : std::chrono::duration_cast<std::chrono::milliseconds>(changed).count());
}

// A file itself; of a folder the files in it that make up a model.
std::string model_stamp(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return file_stamp(path);
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
    const fs::path extension = entry.path().extension();
    if (extension == ".safetensors" || extension == ".json" || extension == ".txt" ||
        extension == ".tiktoken") {
      files.push_back(entry.path());
    }
  }
  std::ranges::sort(files);
  std::string stamp;
  for (const fs::path& file : files) stamp += file_stamp(file);
  return stamp;
}

std::string sampling_text(const SamplingParams& sampling) {
  std::string text = fmt::format(
      "temperature {} top_p {} top_k {} min_p {} max_tokens {} seed {} penalties {} {} {}",
      or_none(sampling.temperature), or_none(sampling.top_p), or_none(sampling.top_k),
      or_none(sampling.min_p), or_none(sampling.max_tokens), sampling.seed,
      sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty);
  for (const std::string& stop : sampling.stop) text += " stop " + counted(stop);
  for (const auto& [id, bias] : sampling.logit_bias) text += fmt::format(" bias {} {}", id, bias);
  return text;
}

std::string compatibility_text(const Compatibility& c) {
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {}", c.tau_gelu_erf, c.region_gelu_erf,
                     c.coordinate_divisor, c.round_outputs_to_bf16, c.sample_coordinates,
                     c.mask_first_token, c.repeat_answer_token, c.clamp_boxes,
                     c.embed_text_coordinates, c.pixels_in_fp32, c.separate_reasoning_budget);
}

// Nothing where there are none, so that keys of older answers hold.
std::string places_text(const std::vector<SpatialRef>& refs) {
  std::string text;
  for (const SpatialRef& ref : refs) {
    text += " at";
    std::visit(
        [&](const auto& numbers) {
          for (const float number : numbers) text += fmt::format(" {}", number);
        },
        ref);
  }
  return text;
}

// A skill and its options, without the text.
struct SkillText {
  std::string operator()(const CaptionRequest& caption) const {
    return fmt::format("caption {}", static_cast<int>(caption.length));
  }
  std::string operator()(const QueryRequest& query) const {
    std::string text =
        fmt::format("query {}", or_none(query.reasoning)) + places_text(query.spatial_refs);
    if (query.json_schema) text += " schema " + counted(*query.json_schema);
    return text;
  }
  std::string operator()(const DetectRequest& detect) const {
    return fmt::format("detect {}", or_none(detect.max_objects));
  }
  std::string operator()(const PointRequest& point) const {
    return fmt::format("point {}", or_none(point.max_objects)) + places_text(point.spatial_refs);
  }
};

}  // namespace

std::string text_of(const SkillRequest& question) {
  if (const auto* query = std::get_if<QueryRequest>(&question)) return query->question;
  if (const auto* detect = std::get_if<DetectRequest>(&question)) return detect->object;
  if (const auto* point = std::get_if<PointRequest>(&question)) return point->object;
  return {};
}

std::string batch_key(const BatchArgs& args, const fs::path& model) {
  const EngineOptions& options = args.model.options;
  std::string text = std::visit(SkillText(), args.questions.front());
  text += fmt::format("\n{}\nexif {} tokens {} precision {} context {} compat {}\n{}\n",
                      sampling_text(args.sampling), args.apply_exif, args.tokens,
                      static_cast<int>(options.precision), options.max_context,
                      compatibility_text(options.compatibility), model_stamp(model));
  for (const auto& [name, path] : options.adapters) text += counted(name) + model_stamp(path);
  return fmt::format("{:016x}", hash(text));
}

}  // namespace fovea::cli
