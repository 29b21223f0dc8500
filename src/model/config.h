#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "fovea/result.h"

#include "base/json_fwd.h"
#include "model/prompt_config.h"

namespace fovea {

class Checkpoint;

/// Routed experts in place of the dense MLP, from `start_layer` on.
struct MoeConfig {
  int num_experts = 0;
  int start_layer = 0;
  int experts_per_token = 0;
  int expert_inner_dim = 0;
};

/// Text decoder. Field names follow config.json; docs of the models call them the same.
struct TextConfig {
  int dim = 0;
  int ff_dim = 0;
  int n_layers = 0;
  int vocab_size = 0;
  int max_context = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int prefix_attn =
      0;  ///< leading positions that see one another when there is a picture: BOS + image
  double rope_theta = 10'000;
  bool tau = false;  ///< per-head scaling of q and v (Moondream 3)
  std::optional<MoeConfig> moe;

  int head_dim() const { return dim / n_heads; }
  int rotary_dim() const { return head_dim() / 2; }
  int qkv_dim() const { return (n_heads + 2 * n_kv_heads) * head_dim(); }
  bool is_moe_layer(int layer) const { return moe.has_value() && layer >= moe->start_layer; }
};

struct VisionConfig {
  int enc_dim = 0;
  int enc_ff_dim = 0;
  int enc_n_layers = 0;
  int enc_n_heads = 0;
  int enc_patch_size = 0;  ///< pixels
  int crop_size = 0;       ///< pixels
  int in_channels = 3;
  int max_crops = 12;      ///< tiles beside the global crop
  int overlap_margin = 4;  ///< patches
  int proj_inner_dim = 0;
  int proj_out_dim = 0;

  int grid() const { return crop_size / enc_patch_size; }
  int image_tokens() const { return grid() * grid(); }
  int patch_dim() const { return in_channels * enc_patch_size * enc_patch_size; }
};

struct RegionConfig {
  int dim = 0;
  int coord_feat_dim = 0;
  int coord_out_dim = 0;
  int size_feat_dim = 0;
  int size_out_dim = 0;  ///< width bins, then height bins
  int inner_dim = 0;     ///< of the two-layer decoders; 0 for linear ones
  bool linear_decoder = false;
  bool use_ln = false;
};

struct ModelConfig {
  std::string family;  ///< "moondream2", "moondream2-gpt2", "moondream-0.5b", "moondream3"
  TextConfig text;
  VisionConfig vision;
  RegionConfig region;
  PromptConfig prompts;
};

/// Reads the dimensions off the checkpoint's tensor shapes, takes what shapes cannot tell (head
/// counts, rotary base, experts per token, templates) from the description of the family that the
/// shapes belong to, and lets `config_json` (may be null) override both (objects text, vision,
/// region, tokenizer; anything else in it is ignored, as hubs put other files of that name beside
/// weights). Everything is validated: divisibility, positive sizes, limits. Errors name the field
/// or tensor.
Result<ModelConfig> resolve_config(const Checkpoint& checkpoint, const json::value* config_json);

}  // namespace fovea
