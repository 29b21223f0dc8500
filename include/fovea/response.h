#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fovea {

/// A box in fractions of the picture's width and height. docs/skills.md says how `confidence`
/// (0..1) is made.
struct Box {
  double x_min = 0, y_min = 0, x_max = 0, y_max = 0;
  double confidence = 0;
};

/// A point in fractions of the picture's width and height.
struct Point {
  double x = 0, y = 0;
  double confidence = 0;
};

/// The stretch [start_idx, end_idx) of the reasoning text, in Unicode code points, that `points`
/// belong to.
struct Grounding {
  int start_idx = 0;
  int end_idx = 0;
  std::vector<Point> points;
};

struct Reasoning {
  std::string text;
  std::vector<Grounding> grounding;
};

enum class FinishReason {
  kStop,    ///< The model ended the answer, or a stop string was met.
  kLength,  ///< The token budget ran out.
};

constexpr std::string_view finish_reason_name(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : "length";
}

/// What a request cost. Times in milliseconds of wall clock.
struct Usage {
  int prompt_tokens = 0;      ///< BOS, the image's positions, and the prompt
  int completion_tokens = 0;  ///< generated, end-of-sequence included
  int cached_tokens = 0;      ///< prompt positions whose state was reused
  double queue_ms = 0;        ///< waiting for the device
  double picture_ms = 0;      ///< decoding and cropping
  double vision_ms = 0;       ///< vision encoder
  double prefill_ms = 0;      ///< prompt through the text model, first token included
  double decode_ms = 0;       ///< every later token
  double ttft_ms = 0;         ///< from submission to the first token
  double total_ms = 0;
};

/// How likely a token was among those that were allowed (temperature 1), and its likeliest rivals.
struct TokenLogprob {
  std::int32_t id = 0;
  float logprob = 0;
  std::vector<std::pair<std::int32_t, float>> top;  ///< likeliest first
};

/// The answer. Which parts are filled depends on the skill: caption and query fill `text`, detect
/// `boxes`, point `points`.
struct Response {
  std::string text;
  std::optional<Reasoning> reasoning;
  std::vector<Box> boxes;
  std::vector<Point> points;
  FinishReason finish_reason = FinishReason::kStop;
  Usage usage;
  std::vector<TokenLogprob> logprobs;  ///< beside token_ids, when they were asked for
  std::vector<std::int32_t>
      token_ids;  ///< all generated ids in order, reasoning included, end-of-sequence left out
};

/// A piece of an answer while it is made; the pieces joined are Response::text. Whole characters
/// only. Return false, or throw, to stop the request (it then fails with kCancelled).
using StreamCallback = std::function<bool(std::string_view text)>;

}  // namespace fovea
