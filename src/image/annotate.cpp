#include "image/annotate.h"

namespace fovea {

void annotate(Image&, std::span<const BoxMark>, std::span<const PointMark>) {}

}  // namespace fovea
