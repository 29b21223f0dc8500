#pragma once

#include <array>
#include <cstdint>

#include "backend/ops.h"
#include "model/activations.h"
#include "model/config.h"
#include "model/weights.h"

namespace fovea {

/// Which of the published readings the region model follows; see docs/compatibility.md.
struct RegionChoices {
  bool erf_gelu = false;
  int coordinate_divisor = 1024;
  bool round_to_bf16 =
      false;  ///< the run's storage is bf16: features and re-embedded values are rounded as there
};

/// Numbers to embeddings and hidden states to numbers: coordinates in [0, 1] and sizes (width,
/// height).
class RegionModel {
 public:
  RegionModel(const RegionConfig& config, const RegionWeights& weights, Ops& ops,
              const RegionChoices& choices)
      : config_(config), weights_(weights), ops_(ops), choices_(choices) {}

  /// values f32 [R, 1] (coordinates) or [R, 2] (width, height) -> embeddings [R, D].
  void encode_coords(Stream& stream, TensorView values, Activations& scratch,
                     TensorView embeddings) const;
  void encode_sizes(Stream& stream, TensorView values, Activations& scratch,
                    TensorView embeddings) const;

  /// hidden [R, D] before the final norm -> logits over bins in scratch.text.bin_logits: [R, coord
  /// bins], or [R, size bins] with the width's half before the height's.
  TensorView coord_logits(Stream& stream, TensorView hidden, Activations& scratch) const;
  TensorView size_logits(Stream& stream, TensorView hidden, Activations& scratch) const;

  /// What a bin means. Sizes are 2^(10 bin / (bins - 1) - 10).
  float coord_value(int bin) const;
  float size_value(int bin) const;

 private:
  void encode(Stream& stream, TensorView values, const Tensor& frequencies, const Linear& encoder,
              Activations& scratch, TensorView embeddings) const;
  TensorView decode(Stream& stream, TensorView hidden, const RegionDecoder& decoder, int num_bins,
                    Activations& scratch) const;

  const RegionConfig& config_;
  const RegionWeights& weights_;
  Ops& ops_;
  RegionChoices choices_;
};

}  // namespace fovea
