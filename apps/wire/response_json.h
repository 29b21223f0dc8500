#pragma once

#include <boost/json/fwd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "fovea/engine.h"
#include "fovea/request.h"
#include "fovea/response.h"

namespace fovea::wire {

enum class TokenIds { kLeaveOut, kList };

/// The answer as the object of the Moondream HTTP protocol plus confidences and `usage`.
boost::json::object response_object(const SkillRequest& skill, const Response& response);

/// The answer as one line of JSON: the object of the Moondream HTTP protocol plus confidences and
/// `usage`. Numbers have as many digits as it takes to read the same double back. No newline.
std::string response_json(const SkillRequest& skill, const Response& response, TokenIds token_ids);

/// One piece of a streamed answer: {"chunk":"..."}.
std::string chunk_json(std::string_view text);

/// {"error":{"message":...,"type":...}}
std::string error_json(const Error& error);

/// Devices, and the model where one was loaded (null otherwise).
std::string info_json(std::span<const DeviceReport> devices, const ModelInfo* model);

}  // namespace fovea::wire
