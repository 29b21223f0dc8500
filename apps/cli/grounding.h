#pragma once

#include <string_view>

#include "fovea/response.h"

namespace fovea::cli {

/// The stretch of the reasoning text that a grounding speaks of. Its indices count code points;
/// what lies outside the text is left out.
std::string_view grounded_text(const Reasoning& reasoning, const Grounding& span);

}  // namespace fovea::cli
