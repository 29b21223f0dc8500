#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "image/tap_pair.h"

namespace fovea {

/// The weights of one resize pass: how each output position sums up input positions. Fixed point
/// with kWeightBits fraction bits, bit for bit those of Pillow's LANCZOS filter.
struct PassWeights {
  int num_outputs = 0;
  int max_pairs = 0;           ///< Row length of `pairs`.
  std::vector<int> first;      ///< [num_outputs] first input position
  std::vector<int> num_taps;   ///< [num_outputs] input positions from there on, <= 2 * max_pairs
  std::vector<TapPair> pairs;  ///< [num_outputs, max_pairs], zeros behind num_taps

  const TapPair* pairs_of(int output) const {
    return pairs.data() + static_cast<std::size_t>(output) * static_cast<std::size_t>(max_pairs);
  }
};

/// Weights to bring `in_size` positions to `out_size`; both at least 1.
PassWeights lanczos_weights(int in_size, int out_size);

}  // namespace fovea
