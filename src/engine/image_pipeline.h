#pragma once

#include "fovea/options.h"
#include "fovea/request.h"
#include "fovea/result.h"

#include "base/thread_pool.h"
#include "image/crops.h"

namespace fovea {

/// A request's picture -> the crops that the vision model sees. Decodes within the limits, turns by
/// EXIF when asked.
Result<Crops> prepare_picture(const Picture& picture, const PictureLimits& limits, bool apply_exif,
                              const CropGeometry& geometry, ThreadPool& pool);

}  // namespace fovea
