#pragma once

#include <filesystem>

#include "fovea/options.h"
#include "fovea/request.h"
#include "fovea/response.h"
#include "fovea/result.h"

namespace fovea::cli {

/// Draws what the answer found on the request's picture, turned the way that the coordinates refer
/// to, and writes it as a PNG file (whole or not at all).
Status annotate(const Request& request, const Response& response, const PictureLimits& limits,
                const std::filesystem::path& out);

}  // namespace fovea::cli
