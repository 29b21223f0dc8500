#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include "fovea/image.h"
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

/// The picture with everything that was found drawn on it, as the bytes of a PNG file. The pixels
/// are turned the way that the coordinates refer to.
Result<std::vector<std::byte>> annotated_png(Image image, std::span<const Finding> findings);

/// Draws what the answers found on the request's picture, turned the way that the coordinates refer
/// to, and writes it as a PNG file (whole or not at all).
Status annotate(const Request& request, std::span<const Finding> findings,
                const PictureLimits& limits, const std::filesystem::path& out);

}  // namespace fovea::cli
