#pragma once

#include <cstdint>
#include <functional>

#include "fovea/image.h"

#include "base/thread_pool.h"

namespace fovea {

/// Resizes with the Lanczos filter of radius 3, widened when shrinking: bit for bit Pillow's
/// `resize((width, height), LANCZOS)`. The aspect ratio is not kept. `image` is not empty, width
/// and height are at least 1.
Image resize_lanczos(const Image& image, int width, int height, ThreadPool& pool);

/// The same, but hands out each finished row instead of building a picture: sink(y, row) is called
/// once for every y in [0, height), on any thread of the pool, with 3 * width bytes that are gone
/// when it returns.
void resize_lanczos_rows(const Image& image, int width, int height, ThreadPool& pool,
                         const std::function<void(int, const std::uint8_t*)>& sink);

}  // namespace fovea
