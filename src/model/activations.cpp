#include "model/activations.h"

#include <algorithm>

#include "base/try.h"

namespace fovea {
namespace {

Result<VisionActivations> create_vision(Device& device, const VisionConfig& config, DType dtype,
                                        const StepLimits& limits) {
  const std::int64_t tokens = config.image_tokens();
  const std::int64_t rows = limits.max_crops_per_pass * tokens;
  const std::int64_t dim = config.enc_dim;
  VisionActivations a;
  FOVEA_TRY(a.patches, Tensor::create(device, dtype, {rows, config.patch_dim()}));
  FOVEA_TRY(a.x, Tensor::create(device, dtype, {rows, dim}));
  FOVEA_TRY(a.normed, Tensor::create(device, dtype, {rows, dim}));
  FOVEA_TRY(a.qkv, Tensor::create(device, dtype, {rows, 3 * dim}));
  FOVEA_TRY(a.attention, Tensor::create(device, dtype, {rows, dim}));
  FOVEA_TRY(a.mlp, Tensor::create(device, dtype, {rows, config.enc_ff_dim}));
  FOVEA_TRY(a.features, Tensor::create(device, dtype, {limits.max_crops, tokens, dim}));
  FOVEA_TRY(a.joined, Tensor::create(device, dtype, {tokens, 2 * dim}));
  FOVEA_TRY(a.projected, Tensor::create(device, dtype, {tokens, config.proj_inner_dim}));
  return a;
}

Result<TextActivations> create_text(Device& device, const ModelConfig& config, DType dtype,
                                    const StepLimits& limits) {
  const TextConfig& text = config.text;
  const RegionConfig& region = config.region;
  const std::int64_t rows = limits.max_rows, sequences = limits.max_sequences;
  TextActivations a;
  FOVEA_TRY(a.x, Tensor::create(device, dtype, {rows, text.dim}));
  FOVEA_TRY(a.normed, Tensor::create(device, dtype, {rows, text.dim}));
  FOVEA_TRY(a.qkv, Tensor::create(device, dtype, {rows, text.qkv_dim()}));
  FOVEA_TRY(a.attention, Tensor::create(device, dtype, {rows, text.dim}));
  FOVEA_TRY(a.mlp, Tensor::create(device, dtype, {rows, std::max(1, text.ff_dim)}));
  if (text.tau) {
    FOVEA_TRY(a.tau_input, Tensor::create(device, dtype, {rows, text.qkv_dim()}));
    FOVEA_TRY(a.tau, Tensor::create(device, dtype, {rows, 2 * text.n_heads}));
  }
  if (text.moe) {
    FOVEA_TRY(a.router, Tensor::create(device, DType::kF32, {rows, text.moe->num_experts}));
    FOVEA_TRY(a.expert_ids,
              Tensor::create(device, DType::kI32, {rows, text.moe->experts_per_token}));
    FOVEA_TRY(a.expert_weights,
              Tensor::create(device, DType::kF32, {rows, text.moe->experts_per_token}));
  }
  FOVEA_TRY(a.hidden, Tensor::create(device, dtype, {sequences, text.dim}));
  FOVEA_TRY(a.final_normed, Tensor::create(device, dtype, {sequences, text.dim}));
  // What is chosen from keeps all its digits.
  FOVEA_TRY(a.logits, Tensor::create(device, DType::kF32, {sequences, text.vocab_size}));
  FOVEA_TRY(a.region_normed, Tensor::create(device, dtype, {sequences, text.dim}));
  FOVEA_TRY(a.region_inner,
            Tensor::create(device, dtype, {sequences, std::max(1, region.inner_dim)}));
  FOVEA_TRY(a.bin_logits,
            Tensor::create(device, DType::kF32,
                           {sequences, std::max(region.coord_out_dim, region.size_out_dim)}));
  FOVEA_TRY(a.region_features,
            Tensor::create(device, dtype,
                           {std::max(1, limits.max_region_rows),
                            std::max(region.coord_feat_dim, region.size_feat_dim)}));
  return a;
}

}  // namespace

Result<Activations> Activations::create(Device& device, const ModelConfig& config, DType dtype,
                                        const StepLimits& limits) {
  Activations activations;
  activations.limits = limits;
  FOVEA_TRY(activations.vision, create_vision(device, config.vision, dtype, limits));
  FOVEA_TRY(activations.text, create_text(device, config, dtype, limits));
  return activations;
}

std::size_t Activations::size_bytes() const {
  std::size_t total = 0;
  for (const Tensor* tensor : {&vision.patches,      &vision.x,
                               &vision.normed,       &vision.qkv,
                               &vision.attention,    &vision.mlp,
                               &vision.features,     &vision.joined,
                               &vision.projected,    &text.x,
                               &text.normed,         &text.qkv,
                               &text.attention,      &text.mlp,
                               &text.tau_input,      &text.tau,
                               &text.router,         &text.expert_ids,
                               &text.expert_weights, &text.hidden,
                               &text.final_normed,   &text.logits,
                               &text.region_normed,  &text.region_inner,
                               &text.bin_logits,     &text.region_features}) {
    total += tensor->size_bytes();
  }
  return total;
}

}  // namespace fovea
