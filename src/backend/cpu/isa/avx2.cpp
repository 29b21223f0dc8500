// x86 with AVX2 and FMA. 12 of 16 registers hold sums.
#define FOVEA_ISA avx2
#define FOVEA_LANES 8
#define FOVEA_TILE_ROWS 6
#define FOVEA_VECTORS 2
#define FOVEA_BF16_DOT 0
#include "table.h"

namespace fovea::cpu {
const KernelTable kAvx2Kernels = FOVEA_KERNEL_TABLE(avx2, "avx2");
}  // namespace fovea::cpu
