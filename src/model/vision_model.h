#pragma once

#include "backend/ops.h"
#include "model/activations.h"
#include "model/config.h"
#include "model/weights.h"

namespace fovea {

/// Pictures to embeddings: a SigLIP-style encoder over each crop, then a projection into the text
/// model's width. Read encode_crops() first, then block().
class VisionModel {
 public:
  /// The configuration and weights must outlive the model. pixel_values [256]: what a pixel counts.
  VisionModel(const VisionConfig& config, const VisionWeights& weights, Ops& ops,
              TensorView pixel_values)
      : config_(config), weights_(weights), ops_(ops), pixel_values_(pixel_values) {}

  /// One pass: crops u8 [n, C, C, 3] (on the device, n <= max_crops_per_pass) -> features
  /// [n, g*g, E], after the last norm. Crops do not see one another.
  void encode_crops(Stream& stream, TensorView crops, Activations& scratch,
                    TensorView features) const;

  /// features of the global crop and its tiles -> embeddings [g*g, D]. See Ops::stitch_and_pool for
  /// the layout.
  void project(Stream& stream, TensorView features, int tile_rows, int tile_cols,
               Activations& scratch, TensorView embeddings) const;

 private:
  void block(Stream& stream, const VisionBlock& block, VisionActivations& a,
             std::int64_t rows) const;

  const VisionConfig& config_;
  const VisionWeights& weights_;
  Ops& ops_;
  TensorView pixel_values_;
};

}  // namespace fovea
