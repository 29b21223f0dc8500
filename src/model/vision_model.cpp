#include "model/vision_model.h"

namespace fovea {

void VisionModel::encode_crops(Stream& stream, TensorView crops, Activations& scratch,
                               TensorView features) const {
  VisionActivations& a = scratch.vision;
  const std::int64_t rows = crops.shape[0] * config_.image_tokens();
  const TensorView x = a.x.rows(rows), patches = a.patches.rows(rows);
  ops_.patchify(stream, crops, pixel_values_, config_.enc_patch_size, patches);
  ops_.linear(stream, {.x = patches,
                       .weight = weights_.patch_emb.weight.get(),
                       .bias = weights_.patch_emb.bias.view(),
                       .add = weights_.pos_emb.view(),  // the same for every crop
                       .y = x});
  for (const VisionBlock& layer : weights_.blocks) block(stream, layer, a, rows);
  ops_.layer_norm(stream, x, weights_.post_ln.weight.view(), weights_.post_ln.bias.view(),
                  kLayerNormEps, features.reshaped({rows, config_.enc_dim}));
}

// x = x + proj(attention(ln1(x))); x = x + fc2(gelu(fc1(ln2(x))))
void VisionModel::block(Stream& stream, const VisionBlock& block, VisionActivations& a,
                        std::int64_t rows) const {
  const TensorView x = a.x.rows(rows), normed = a.normed.rows(rows), qkv = a.qkv.rows(rows);
  const TensorView attention = a.attention.rows(rows), mlp = a.mlp.rows(rows);

  ops_.layer_norm(stream, x, block.ln1.weight.view(), block.ln1.bias.view(), kLayerNormEps, normed);
  ops_.linear(
      stream,
      {.x = normed, .weight = block.qkv.weight.get(), .bias = block.qkv.bias.view(), .y = qkv});
  ops_.self_attention(stream, qkv, config_.image_tokens(), config_.enc_n_heads, attention);
  ops_.linear(stream, {.x = attention,
                       .weight = block.proj.weight.get(),
                       .bias = block.proj.bias.view(),
                       .add = x,
                       .y = x});

  ops_.layer_norm(stream, x, block.ln2.weight.view(), block.ln2.bias.view(), kLayerNormEps, normed);
  ops_.linear(stream, {.x = normed,
                       .weight = block.fc1.weight.get(),
                       .bias = block.fc1.bias.view(),
                       .activation = Activation::kGeluTanh,
                       .y = mlp});
  ops_.linear(stream, {.x = mlp,
                       .weight = block.fc2.weight.get(),
                       .bias = block.fc2.bias.view(),
                       .add = x,
                       .y = x});
}

void VisionModel::project(Stream& stream, TensorView features, int tile_rows, int tile_cols,
                          Activations& scratch, TensorView embeddings) const {
  VisionActivations& a = scratch.vision;
  ops_.stitch_and_pool(stream, features, tile_rows, tile_cols, config_.overlap_margin,
                       a.joined.view());
  ops_.linear(stream, {.x = a.joined.view(),
                       .weight = weights_.proj_fc1.weight.get(),
                       .bias = weights_.proj_fc1.bias.view(),
                       .activation = Activation::kGeluTanh,
                       .y = a.projected.view()});
  ops_.linear(stream, {.x = a.projected.view(),
                       .weight = weights_.proj_fc2.weight.get(),
                       .bias = weights_.proj_fc2.bias.view(),
                       .y = embeddings});
}

}  // namespace fovea
