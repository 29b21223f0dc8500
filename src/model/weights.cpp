#include "model/weights.h"

#include <array>
#include <cmath>
#include <string>

#include "base/error.h"
#include "base/try.h"
#include "tensor/half.h"

namespace fovea {
namespace {

Result<VisionBlock> load_vision_block(WeightLoader& loader, const VisionConfig& config, int index) {
  const std::string name = fmt::format("vision.blocks.{}", index);
  const std::int64_t dim = config.enc_dim, inner = config.enc_ff_dim;
  VisionBlock block;
  FOVEA_TRY(block.ln1, loader.layer_norm(name + ".ln1", dim));
  FOVEA_TRY(block.ln2, loader.layer_norm(name + ".ln2", dim));
  FOVEA_TRY(block.qkv, loader.block_linear(name + ".attn.qkv", 3 * dim, dim));
  // With few columns to compute for each that is read, the other two gain nothing from 8 bits.
  FOVEA_TRY(block.proj, loader.linear(name + ".attn.proj", dim, dim));
  FOVEA_TRY(block.fc1, loader.block_linear(name + ".mlp.fc1", inner, dim));
  FOVEA_TRY(block.fc2, loader.linear(name + ".mlp.fc2", dim, inner));
  return block;
}

Result<VisionWeights> load_vision(WeightLoader& loader, const VisionConfig& config) {
  VisionWeights vision;
  FOVEA_TRY(vision.patch_emb,
            loader.linear("vision.patch_emb", config.enc_dim, config.patch_dim()));
  FOVEA_TRY(vision.pos_emb,
            loader.tensor("vision.pos_emb", {config.image_tokens(), config.enc_dim}));
  for (int i = 0; i < config.enc_n_layers; ++i) {
    FOVEA_TRY(VisionBlock block, load_vision_block(loader, config, i));
    vision.blocks.push_back(std::move(block));
  }
  FOVEA_TRY(vision.post_ln, loader.layer_norm("vision.post_ln", config.enc_dim));
  FOVEA_TRY(vision.proj_fc1,
            loader.linear("vision.proj_mlp.fc1", config.proj_inner_dim, 2 * config.enc_dim));
  FOVEA_TRY(vision.proj_fc2,
            loader.linear("vision.proj_mlp.fc2", config.proj_out_dim, config.proj_inner_dim));
  return vision;
}

Result<MoeWeights> load_moe(WeightLoader& loader, const TextConfig& config, int index) {
  const std::string block = fmt::format("text.blocks.{}", index);
  const std::int64_t inner = config.moe->expert_inner_dim;
  MoeWeights moe;
  FOVEA_TRY(moe.router, loader.linear(block + ".mlp.router", config.moe->num_experts, config.dim));
  FOVEA_TRY(moe.up, loader.experts(block + ".mlp.fc1.weight", block + ".moe_quant.up_scale",
                                   config.moe->num_experts, 2 * inner, config.dim));
  FOVEA_TRY(moe.down, loader.experts(block + ".mlp.fc2.weight", block + ".moe_quant.down_scale",
                                     config.moe->num_experts, config.dim, inner));
  return moe;
}

// position_scale[pos, h] = 0.5 + sigmoid(alpha[h] ln(pos + 1)), computed in f32; a 16-bit run
// stores the table in bf16.
Result<TauWeights> load_tau(WeightLoader& loader, const TextConfig& config, int index,
                            int num_positions) {
  const std::string tau = fmt::format("text.blocks.{}.attn.tau", index);
  const std::array<std::string, 2> parts{tau + ".wq", tau + ".wv"};
  TauWeights weights;
  FOVEA_TRY(weights.wqwv, loader.stacked(tau + ".wqwv", parts, config.n_heads, config.qkv_dim()));
  FOVEA_TRY(const std::vector<float> alpha, loader.host_values(tau + ".alpha", config.n_heads));
  std::vector<float> scale;
  scale.reserve(static_cast<std::size_t>(num_positions) * alpha.size());
  for (int pos = 0; pos < num_positions; ++pos) {
    const float log_pos = std::log(static_cast<float>(pos) + 1.0f);
    for (const float a : alpha) {
      const float value = 0.5f + 1.0f / (1.0f + std::exp(-a * log_pos));
      scale.push_back(loader.storage() == DType::kF32 ? value : round_to_bf16(value));
    }
  }
  FOVEA_TRY(weights.position_scale, loader.upload(scale, {num_positions, config.n_heads}));
  return weights;
}

Result<TextBlock> load_text_block(WeightLoader& loader, const TextConfig& config, int index,
                                  int num_positions) {
  const std::string name = fmt::format("text.blocks.{}", index);
  TextBlock block;
  FOVEA_TRY(block.ln, loader.layer_norm(name + ".ln", config.dim));
  FOVEA_TRY(block.qkv, loader.block_linear(name + ".attn.qkv", config.qkv_dim(), config.dim));
  FOVEA_TRY(block.proj, loader.block_linear(name + ".attn.proj", config.dim, config.dim));
  if (config.is_moe_layer(index)) {
    FOVEA_TRY(block.moe, load_moe(loader, config, index));
  } else {
    FOVEA_TRY(block.fc1, loader.block_linear(name + ".mlp.fc1", config.ff_dim, config.dim));
    FOVEA_TRY(block.fc2, loader.block_linear(name + ".mlp.fc2", config.dim, config.ff_dim));
  }
  if (config.tau) {
    FOVEA_TRY(block.tau, load_tau(loader, config, index, num_positions));
  }
  return block;
}

// cos and sin of pos * theta^(-2i / rotary), all in f32.
Result<Tensor> make_rope_table(WeightLoader& loader, const TextConfig& config, int num_positions) {
  const int pairs = config.rotary_dim() / 2;
  std::vector<float> table;
  table.reserve(static_cast<std::size_t>(num_positions) * static_cast<std::size_t>(pairs) * 2);
  std::vector<float> inv_freq;
  for (int i = 0; i < pairs; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.rotary_dim());
    inv_freq.push_back(1.0f / std::pow(static_cast<float>(config.rope_theta), exponent));
  }
  for (int pos = 0; pos < num_positions; ++pos) {
    for (const float frequency : inv_freq) {
      const float angle = static_cast<float>(pos) * frequency;
      table.push_back(std::cos(angle));
      table.push_back(std::sin(angle));
    }
  }
  return loader.upload(table, {num_positions, pairs, 2});
}

Result<TextWeights> load_text(WeightLoader& loader, const TextConfig& config, int num_positions) {
  TextWeights text;
  FOVEA_TRY(text.wte, loader.table("text.wte", {config.vocab_size, config.dim}));
  for (int i = 0; i < config.n_layers; ++i) {
    FOVEA_TRY(TextBlock block, load_text_block(loader, config, i, num_positions));
    text.blocks.push_back(std::move(block));
  }
  FOVEA_TRY(text.post_ln, loader.layer_norm("text.post_ln", config.dim));
  FOVEA_TRY(text.lm_head, loader.linear("text.lm_head", config.vocab_size, config.dim));
  FOVEA_TRY(text.rope, make_rope_table(loader, config, num_positions));
  return text;
}

Result<RegionDecoder> load_decoder(WeightLoader& loader, const RegionConfig& config,
                                   const std::string& name, int num_bins) {
  RegionDecoder decoder;
  if (config.linear_decoder) {
    FOVEA_TRY(decoder.fc1, loader.linear(name, num_bins, config.dim));
    return decoder;
  }
  FOVEA_TRY(decoder.fc1, loader.linear(name + ".fc1", config.inner_dim, config.dim));
  FOVEA_TRY(decoder.fc2, loader.linear(name + ".fc2", num_bins, config.inner_dim));
  return decoder;
}

Result<RegionWeights> load_region(WeightLoader& loader, const RegionConfig& config) {
  RegionWeights region;
  FOVEA_TRY(region.coord_encoder,
            loader.linear("region.coord_encoder", config.dim, config.coord_feat_dim));
  FOVEA_TRY(region.size_encoder,
            loader.linear("region.size_encoder", config.dim, config.size_feat_dim));
  FOVEA_TRY(region.coord_features,
            loader.tensor("region.coord_features", {1, config.coord_feat_dim / 2}));
  FOVEA_TRY(region.size_features,
            loader.tensor("region.size_features", {2, config.size_feat_dim / 2}));
  if (config.use_ln) {
    FOVEA_TRY(region.ln, loader.layer_norm("region.ln", config.dim));
  }
  FOVEA_TRY(region.coord_decoder,
            load_decoder(loader, config, "region.coord_decoder", config.coord_out_dim));
  FOVEA_TRY(region.size_decoder,
            load_decoder(loader, config, "region.size_decoder", config.size_out_dim));
  return region;
}

}  // namespace

Result<Weights> load_weights(WeightLoader& loader, const ModelConfig& config, int num_positions) {
  Weights weights;
  FOVEA_TRY(weights.vision, load_vision(loader, config.vision));
  FOVEA_TRY(weights.text, load_text(loader, config.text, num_positions));
  FOVEA_TRY(weights.region, load_region(loader, config.region));
  return weights;
}

}  // namespace fovea
