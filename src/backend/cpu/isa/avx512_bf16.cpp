// As avx512.cpp, with the bf16 dot product of AVX512_BF16 for bf16 weights.
#define FOVEA_ISA avx512_bf16
#define FOVEA_LANES 16
#define FOVEA_TILE_ROWS 12
#define FOVEA_VECTORS 2
#define FOVEA_BF16_DOT 1
#include "table.h"

namespace fovea::cpu {
const KernelTable kAvx512Bf16Kernels = FOVEA_KERNEL_TABLE(avx512_bf16, "avx512_bf16");
}  // namespace fovea::cpu
