// x86 with AVX-512 F, BW, DQ and VL. 24 of 32 registers hold sums.
#define FOVEA_ISA avx512
#define FOVEA_LANES 16
#define FOVEA_TILE_ROWS 12
#define FOVEA_VECTORS 2
#define FOVEA_BF16_DOT 0
#include "table.h"

namespace fovea::cpu {
const KernelTable kAvx512Kernels = FOVEA_KERNEL_TABLE(avx512, "avx512");
}  // namespace fovea::cpu
