#pragma once

// What both kernels for routed experts share. For .cu files.

#include "kernels/common.h"

namespace fovea::cuda {

/// gelu_erf(h) * (g + 1)
__device__ __forceinline__ float gated(float h, float g) {
  return kernels::gelu_erf(h) * (g + 1.0f);
}

/// Places begin..end of an expert; expert -1: none.
struct ExpertPlaces {
  int expert, begin, end;
};

}  // namespace fovea::cuda
