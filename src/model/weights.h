#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "backend/buffer.h"
#include "backend/ops.h"
#include "model/config.h"
#include "model/weight_loader.h"

namespace fovea {

/// One block of the vision encoder (dim E, inner F).
struct VisionBlock {
  LayerNorm ln1, ln2;
  Linear qkv;   ///< [3E, E]
  Linear proj;  ///< [E, E]
  Linear fc1;   ///< [F, E]
  Linear fc2;   ///< [E, F]
};

struct VisionWeights {
  Linear patch_emb;  ///< [E, 3 p p]
  Tensor pos_emb;    ///< [g g, E]
  std::vector<VisionBlock> blocks;
  LayerNorm post_ln;
  Linear proj_fc1;  ///< [inner, 2E]
  Linear proj_fc2;  ///< [D, inner]
};

/// Routed experts of one text block.
struct MoeWeights {
  Linear router;                                    ///< [experts, D]
  std::vector<std::unique_ptr<const Matrix>> up;    ///< each [2 inner, D]: h rows, then g rows
  std::vector<std::unique_ptr<const Matrix>> down;  ///< each [D, inner]
};

/// Moondream 3: scales of q and v.
struct TauWeights {
  std::unique_ptr<const Matrix> wqwv;  ///< [2 heads, qkv]: rows for q, rows for v
  Tensor position_scale;               ///< [max_context, heads] = 0.5 + sigmoid(alpha ln(pos + 1))
};

/// One block of the text model (dim D). Either the dense pair or the experts are there.
struct TextBlock {
  LayerNorm ln;
  Linear qkv;   ///< [(heads + 2 kv_heads) head_dim, D]
  Linear proj;  ///< [D, D]
  Linear fc1;   ///< [F, D]
  Linear fc2;   ///< [D, F]
  std::optional<MoeWeights> moe;
  std::optional<TauWeights> tau;
};

struct TextWeights {
  Tensor wte;  ///< [vocab, D] in the storage type
  std::vector<TextBlock> blocks;
  LayerNorm post_ln;
  Linear lm_head;  ///< [vocab, D]
  Tensor rope;     ///< [max_context, rotary / 2, 2] cos, sin
};

/// hidden -> bins: fc2(gelu(fc1(x))), or fc1 alone when the model has linear heads.
struct RegionDecoder {
  Linear fc1;
  std::optional<Linear> fc2;
};

struct RegionWeights {
  Linear coord_encoder;   ///< [D, coord_feat]
  Linear size_encoder;    ///< [D, size_feat]
  Tensor coord_features;  ///< [1, coord_feat / 2] frequencies
  Tensor size_features;   ///< [2, size_feat / 2]
  std::optional<LayerNorm> ln;
  RegionDecoder coord_decoder;  ///< -> [coord bins]
  RegionDecoder size_decoder;   ///< -> [width bins, height bins]
};

/// Everything a checkpoint holds, on the device, immutable after loading.
struct Weights {
  VisionWeights vision;
  TextWeights text;
  RegionWeights region;
};

/// Loads and packs every tensor that `config` asks for. `num_positions` is the length of the
/// position tables. Errors name the tensor with the shape found and the shape wanted.
Result<Weights> load_weights(WeightLoader& loader, const ModelConfig& config, int num_positions);

}  // namespace fovea
