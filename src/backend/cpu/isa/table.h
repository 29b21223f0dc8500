#pragma once

// The table of one instruction set, from the kernels compiled for it.

#include "decode_kernels.h"
#include "lora_kernels.h"
#include "row_kernels.h"
#include "stream_kernels.h"

namespace fovea::cpu::FOVEA_ISA {

constexpr int64_t kScratchFloats =
    kGemmScratchFloats > kAttentionScratchFloats ? kGemmScratchFloats : kAttentionScratchFloats;

}  // namespace fovea::cpu::FOVEA_ISA

#define FOVEA_KERNEL_TABLE(isa, isa_name)                                                        \
  {                                                                                              \
    isa_name, isa::kPanelCols, isa::kTileRows, isa::kBlockRows, isa::kBlockPanels,               \
        isa::kAttentionRows, isa::kScratchFloats, isa::gemm_tile, isa::gemm_stream, isa::attend, \
        isa::attend_decode, isa::join_blocks, isa::layer_norm, isa::activate, isa::gelu_gate,    \
        isa::add_scaled, isa::max_sum_exp, isa::lora_shrink, isa::lora_expand                    \
  }
