// As neon.cpp, with the bf16 dot product of Armv8.6 for bf16 weights.
#define FOVEA_ISA neon_bf16
#define FOVEA_LANES 4
#define FOVEA_TILE_ROWS 6
#define FOVEA_VECTORS 4
#define FOVEA_BF16_DOT 1
#include "table.h"

namespace fovea::cpu {
const KernelTable kNeonBf16Kernels = FOVEA_KERNEL_TABLE(neon_bf16, "neon_bf16");
}  // namespace fovea::cpu
