// Any processor of the architecture: what the compiler makes of 4-float vectors.
#define FOVEA_ISA generic
#define FOVEA_LANES 4
#define FOVEA_TILE_ROWS 4
#define FOVEA_VECTORS 2
#define FOVEA_BF16_DOT 0
#include "table.h"

namespace fovea::cpu {
const KernelTable kGenericKernels = FOVEA_KERNEL_TABLE(generic, "generic");
}  // namespace fovea::cpu
