#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "fovea/engine.h"
#include "fovea/request.h"
#include "fovea/response.h"

namespace fovea::cli {

/// What a person reads: the answer as text, boxes and points as lines of percentages. Ends with a
/// newline.
std::string response_text(const SkillRequest& skill, const Response& response);

/// What stands above each of several answers: the question or thing, and the seed where there are
/// several answers to it. One line without its end; empty for a caption without a seed.
std::string answer_heading(const SkillRequest& skill, std::optional<std::uint64_t> seed);

/// The thoughts that came before an answer, with the places they speak of; empty without any.
std::string reasoning_text(const Response& response);

/// Text of a model without the control characters that could drive a terminal; line breaks and tabs
/// stay.
std::string printable(std::string_view text);

/// Devices, and the model's size and memory where one was loaded.
std::string info_text(std::span<const DeviceReport> devices, const ModelInfo* model);

}  // namespace fovea::cli
