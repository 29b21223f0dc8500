#pragma once

#include <filesystem>
#include <span>

#include "fovea/options.h"
#include "fovea/request.h"
#include "fovea/response.h"
#include "fovea/result.h"

namespace fovea::cli {

/// An answer to draw, with the question that it belongs to. Refers to both.
struct Finding {
  const SkillRequest& skill;
  const Response& response;
};

/// Draws what the answers found on the request's picture, turned the way that the coordinates refer
/// to, and writes it as a PNG file (whole or not at all).
Status annotate(const Request& request, std::span<const Finding> findings,
                const PictureLimits& limits, const std::filesystem::path& out);

}  // namespace fovea::cli
