#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "fovea/image.h"

namespace fovea {

/// A picture as the caller has it: the bytes of a JPEG, PNG, WebP or GIF file, or decoded pixels.
/// Copies share what it holds, so that many questions about one picture cost its memory once.
class Picture {
 public:
  Picture(std::vector<std::byte> file)  // NOLINT(google-explicit-constructor)
      : file_(std::make_shared<const std::vector<std::byte>>(std::move(file))) {}
  Picture(Image image)  // NOLINT(google-explicit-constructor)
      : image_(std::make_shared<const Image>(std::move(image))) {}

  /// One of the two is null.
  const std::shared_ptr<const std::vector<std::byte>>& file() const { return file_; }
  const std::shared_ptr<const Image>& image() const { return image_; }

 private:
  std::shared_ptr<const std::vector<std::byte>> file_;
  std::shared_ptr<const Image> image_;
};

/// A place in the picture, as fractions of its width and height (origin top left): a point x, y or
/// a box x_min, y_min, x_max, y_max.
using SpatialRef = std::variant<std::array<float, 2>, std::array<float, 4>>;

enum class CaptionLength { kShort, kNormal, kLong };

/// How words are chosen. What is not set takes the skill's default (text skills: temperature 0.2,
/// top_p 0.9, 768 tokens; detect and point: greedy).
struct SamplingParams {
  std::optional<float> temperature;  ///< >= 0; 0 is greedy
  std::optional<float> top_p;        ///< 0 < top_p <= 1
  std::optional<int> top_k;          ///< >= 0; 0 keeps all
  std::optional<float> min_p;        ///< 0 <= min_p < 1
  std::optional<int> max_tokens;     ///< >= 1; generated tokens, the end-of-sequence token included
  std::uint64_t seed = 0;            ///< equal seeds give equal answers
  std::vector<std::string> stop;     ///< the answer ends before the first of these (at most 16)
  /// > 0; above 1, logits of words of the prompt and the answer are divided by it if positive, else
  /// multiplied.
  float repetition_penalty = 1;
  float presence_penalty = 0;   ///< -2..2; taken off the logits of words that the answer holds
  float frequency_penalty = 0;  ///< -2..2; the same, as often as the answer holds the word
  std::vector<std::pair<std::int32_t, float>> logit_bias;  ///< id, -100..100; at most 1024
  bool ignore_eos = false;          ///< never end before max_tokens: for benchmarks
  std::optional<int> top_logprobs;  ///< 0..20: report log-probs, and so many alternatives
};

/// Describe the picture.
struct CaptionRequest {
  CaptionLength length = CaptionLength::kNormal;
};

/// Answer a question, with or without a picture.
struct QueryRequest {
  std::string question{};
  std::optional<bool> reasoning{};  ///< think first; not set: the model family's own default
  std::vector<SpatialRef> spatial_refs{};
  /// The answer is JSON of this schema; docs/skills.md lists the keywords. Cut short when
  /// max_tokens run out. The model does not see the schema: the question should say what is wanted.
  std::optional<std::string> json_schema{};
};

/// Boxes around everything that the phrase names.
struct DetectRequest {
  std::string object{};
  std::optional<int> max_objects{};  ///< >= 1; 50 when not set
};

/// Points on everything that the phrase names. With object "gaze" and one spatial ref on a face:
/// where that person looks.
struct PointRequest {
  std::string object{};
  std::optional<int> max_objects{};  ///< >= 1; limited by max_tokens alone when not set
  std::vector<SpatialRef> spatial_refs{};
};

using SkillRequest = std::variant<CaptionRequest, QueryRequest, DetectRequest, PointRequest>;

/// One thing to do with one picture. Immutable once submitted.
struct Request {
  SkillRequest skill{};
  std::optional<Picture> picture{};  ///< required but for a query
  bool apply_exif =
      true;  ///< turn the picture as its EXIF orientation says; coordinates refer to the turned one
  SamplingParams sampling{};
  std::string adapter{};                ///< name of an adapter that the engine has; empty = none
  int priority = 0;                     ///< -100..100; each step is worth a second of waiting
  std::optional<double> deadline_ms{};  ///< > 0, from submission; then it fails (kDeadlineExceeded)
  std::string request_id{};  ///< the caller's name for it in the request log; empty = none
};

/// The same request `count` times, for several answers (the `n` of other interfaces): run them with
/// Engine::run_all, and they share the picture and its prompt. Answer i has the seed
/// sampling.seed + i, so that each is found again alone by its seed. Greedy answers are all equal.
inline std::vector<Request> repeat(const Request& request, int count) {
  std::vector<Request> requests(static_cast<std::size_t>(count < 0 ? 0 : count), request);
  std::uint64_t seed = request.sampling.seed;
  for (Request& each : requests) each.sampling.seed = seed++;
  return requests;
}

}  // namespace fovea
