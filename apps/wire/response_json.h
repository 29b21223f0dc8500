#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "fovea/engine.h"
#include "fovea/request.h"
#include "fovea/response.h"

namespace fovea::wire {

/// Which of several answers a line of JSON holds.
struct AnswerLabel {
  int index = 0;                           ///< of the question, from 0
  std::optional<std::uint64_t> seed = {};  ///< when there are several answers to each question
};

enum class TokenIds { kLeaveOut, kList };

/// The answer as the object of the Moondream HTTP protocol plus confidences and `usage`.
boost::json::object response_object(const SkillRequest& skill, const Response& response);

/// The answer as one line of JSON: the object of the Moondream HTTP protocol plus confidences and
/// `usage`, and `logprobs` where they were asked for. Numbers have as many digits as it takes to
/// read the same double back. With a label, `index`, the question or object, and `seed` come first.
/// No newline.
std::string response_json(const SkillRequest& skill, const Response& response, TokenIds token_ids,
                          const std::optional<AnswerLabel>& label = {});

/// One piece of a streamed answer: {"chunk":"..."}.
std::string chunk_json(std::string_view text);

/// {"error":{"message":...,"type":...}}
std::string error_json(const Error& error);
/// The same for one of several answers, labelled as response_json() does.
std::string error_json(const SkillRequest& skill, const Error& error, const AnswerLabel& label);

/// Devices, and the model where one was loaded (null otherwise).
std::string info_json(std::span<const DeviceReport> devices, const ModelInfo* model);

}  // namespace fovea::wire
