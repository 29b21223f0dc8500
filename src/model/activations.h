#pragma once

#include <cstddef>

#include "backend/buffer.h"
#include "model/config.h"

namespace fovea {

/// Largest shapes that one pass meets; scratch memory follows from them and from the configuration.
struct StepLimits {
  int max_crops_per_pass = 2;  ///< crops that go through the vision encoder together
  int max_crops = 2;           ///< crops whose features are held at once
  int max_rows = 0;            ///< rows of one text pass; at least the image prefix
  int max_sequences = 1;
  int max_region_rows =
      0;  ///< coordinates or sizes encoded at once (spatial references of a prompt)
};

/// Scratch of the vision model. R = max_crops_per_pass * grid^2 rows, E = encoder width.
struct VisionActivations {
  Tensor patches;    ///< [R, 3 p p]
  Tensor x;          ///< [R, E] residual stream
  Tensor normed;     ///< [R, E]
  Tensor qkv;        ///< [R, 3E]
  Tensor attention;  ///< [R, E]
  Tensor mlp;        ///< [R, F]
  Tensor features;   ///< [max_crops, grid^2, E] encoder output of every crop
  Tensor joined;     ///< [grid^2, 2E] global features beside pooled local ones
  Tensor projected;  ///< [grid^2, inner]
};

/// Scratch of the text and region models. T = max_rows, S = max_sequences, D = width.
struct TextActivations {
  Tensor x;                ///< [T, D] residual stream
  Tensor normed;           ///< [T, D]
  Tensor qkv;              ///< [T, qkv]
  Tensor attention;        ///< [T, D]
  Tensor mlp;              ///< [T, F]
  Tensor tau_input;        ///< [T, qkv]
  Tensor tau;              ///< [T, 2 heads]
  Tensor router;           ///< [T, experts]
  Tensor expert_ids;       ///< [T, experts per token] i32
  Tensor expert_weights;   ///< [T, experts per token]
  Tensor hidden;           ///< [S, D] last layer, rows that are wanted, before post_ln
  Tensor final_normed;     ///< [S, D]
  Tensor logits;           ///< [S, vocab]
  Tensor region_normed;    ///< [S, D]
  Tensor region_inner;     ///< [S, inner]
  Tensor bin_logits;       ///< [S, max(coord bins, size bins)]
  Tensor region_features;  ///< [max_region_rows, max(coord_feat, size_feat)]
};

/// All scratch memory of a model: allocated once, never during a pass.
struct Activations {
  VisionActivations vision;
  TextActivations text;
  StepLimits limits;

  /// Error: kResourceExhausted.
  static Result<Activations> create(Device& device, const ModelConfig& config, DType dtype,
                                    const StepLimits& limits);
  std::size_t size_bytes() const;
};

}  // namespace fovea
