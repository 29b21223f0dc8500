// AArch64 (Advanced SIMD is always there). 24 of 32 registers hold sums.
#define FOVEA_ISA neon
#define FOVEA_LANES 4
#define FOVEA_TILE_ROWS 6
#define FOVEA_VECTORS 4
#define FOVEA_BF16_DOT 0
#include "table.h"

namespace fovea::cpu {
const KernelTable kNeonKernels = FOVEA_KERNEL_TABLE(neon, "neon");
}  // namespace fovea::cpu
