#include "model/text_model.h"

#include <array>

#include "model/adapter_slots.h"

namespace fovea {

TextModel::TextModel(const TextConfig& config, const TextWeights& weights, Ops& ops, int page_size,
                     Activation tau_activation)
    : config_(config),
      weights_(weights),
      ops_(ops),
      heads_{config.n_heads, config.n_kv_heads, config.head_dim(), page_size},
      tau_activation_(tau_activation) {}

void TextModel::forward(Stream& stream, const ForwardBatch& batch, std::span<const KvPages> cache,
                        Activations& scratch) const {
  TextActivations& a = scratch.text;
  const std::int64_t rows = batch.token_ids.shape[0];
  const TensorView x = a.x.rows(rows);

  ops_.embed(stream, weights_.wte.view(), batch.token_ids, x);
  for (const EmbeddedRows& embedded : batch.embedded)
    ops_.scatter_rows(stream, embedded.values, embedded.rows, x);

  for (int layer = 0; layer < config_.n_layers; ++layer) {
    block(stream, layer, batch, cache[static_cast<std::size_t>(layer)], a);
  }
  ops_.gather_rows(stream, x, batch.last_rows, a.hidden.rows(batch.last_rows.shape[0]));
}

// n = ln(x); x = x + proj(attention(n)) + mlp(n). The one norm serves both halves, so that their
// first products, and their last, may run at once.
void TextModel::block(Stream& stream, int layer, const ForwardBatch& batch, const KvPages& pages,
                      TextActivations& a) const {
  const TextBlock& block = weights_.blocks[static_cast<std::size_t>(layer)];
  const std::int64_t rows = batch.token_ids.shape[0];
  const TensorView x = a.x.rows(rows), normed = a.normed.rows(rows);
  const TensorView qkv = a.qkv.rows(rows), attention = a.attention.rows(rows);

  const Linear& inner = block.moe ? block.moe->router : block.fc1;
  // What an adapter adds to is activated behind that.
  const bool is_activated = !block.moe && !batch.has_adapters();
  const bool makes_tau_input = block.tau && !batch.has_adapters();
  ops_.layer_norm(stream, x, block.ln.weight.view(), block.ln.bias.view(), kLayerNormEps, normed);
  LinearArgs to_qkv{
      .x = normed, .weight = block.qkv.weight.get(), .bias = block.qkv.bias.view(), .y = qkv};
  if (makes_tau_input) {
    to_qkv.activated = a.tau_input.rows(rows);
    to_qkv.activated_by = tau_activation_;
  }
  const LinearArgs to_inner{.x = normed,
                            .weight = inner.weight.get(),
                            .bias = inner.bias.view(),
                            .activation = is_activated ? Activation::kGeluTanh : Activation::kNone,
                            .y = (block.moe ? a.router : a.mlp).rows(rows)};
  ops_.linears(stream, std::array{to_qkv, to_inner});
  adapt(stream, layer, LoraTarget::kQkv, batch, normed, qkv);
  TauArgs tau;
  if (block.tau) {
    if (!makes_tau_input) ops_.activate(stream, qkv, tau_activation_, a.tau_input.rows(rows));
    tau = {.weight = block.tau->wqwv.get(),
           .position_scale = block.tau->position_scale.view(),
           .input = a.tau_input.rows(rows),
           .output = a.tau.rows(rows)};
  }
  ops_.cached_attention(stream, {.qkv = qkv,
                                 .tau = tau,
                                 .rope = weights_.rope.view(),
                                 .positions = batch.positions,
                                 .slots = batch.slots,
                                 .heads = heads_,
                                 .pages = pages,
                                 .batch = batch.attention,
                                 .out = attention});
  const LinearArgs proj{.x = attention,
                        .weight = block.proj.weight.get(),
                        .bias = block.proj.bias.view(),
                        .add = x,
                        .y = x};
  if (block.moe) {
    experts(stream, layer, batch, proj, a);
  } else {
    mlp(stream, layer, batch, proj, a);
  }
  // Adapters of proj read the norm, not the attention: they were trained so.
  adapt(stream, layer, LoraTarget::kProj, batch, normed, x);
}

// From the first product on, which is in a.mlp; and `proj`, which adds to the same rows.
void TextModel::mlp(Stream& stream, int layer, const ForwardBatch& batch, const LinearArgs& proj,
                    TextActivations& a) const {
  const TextBlock& block = weights_.blocks[static_cast<std::size_t>(layer)];
  const std::int64_t rows = batch.token_ids.shape[0];
  const TensorView x = a.x.rows(rows), normed = a.normed.rows(rows), inner = a.mlp.rows(rows);
  if (batch.has_adapters()) {
    adapt(stream, layer, LoraTarget::kFc1, batch, normed, inner);
    ops_.activate(stream, inner, Activation::kGeluTanh, inner);
  }
  ops_.add_linears(stream, std::array{proj, LinearArgs{.x = inner,
                                                       .weight = block.fc2.weight.get(),
                                                       .bias = block.fc2.bias.view(),
                                                       .add = x,
                                                       .y = x}});
  adapt(stream, layer, LoraTarget::kFc2, batch, inner, x);
}

// From the router's logits on, which are in a.router; and `proj`, which adds to the same rows.
void TextModel::experts(Stream& stream, int layer, const ForwardBatch& batch,
                        const LinearArgs& proj, TextActivations& a) const {
  const MoeWeights& moe = *weights_.blocks[static_cast<std::size_t>(layer)].moe;
  const std::int64_t rows = batch.token_ids.shape[0];
  MoeLora lora;
  if (batch.has_adapters()) {
    lora = {batch.adapters->weights(layer, LoraTarget::kExpertsUp),
            batch.adapters->weights(layer, LoraTarget::kExpertsDown),
            {batch.attention.query_start, batch.adapter_slots}};
  }
  ops_.routed_experts(stream, {.x = a.normed.rows(rows),
                               .router = a.router.rows(rows),
                               .experts = a.expert_ids.rows(rows),
                               .weights = a.expert_weights.rows(rows),
                               .up = moe.up,
                               .down = moe.down,
                               .lora = batch.has_adapters() ? &lora : nullptr,
                               .beside = &proj,
                               .y = a.x.rows(rows)});
}

void TextModel::adapt(Stream& stream, int layer, LoraTarget target, const ForwardBatch& batch,
                      TensorView x, TensorView y) const {
  if (!batch.has_adapters()) return;
  const LoraWeights weights = batch.adapters->weights(layer, target);
  if (weights.empty()) return;
  ops_.lora(stream, {.x = x,
                     .weights = weights,
                     .batch = {batch.attention.query_start, batch.adapter_slots},
                     .y = y});
}

void TextModel::logits(Stream& stream, TensorView hidden, Activations& scratch) const {
  TextActivations& a = scratch.text;
  const std::int64_t rows = hidden.shape[0];
  const TensorView normed = a.final_normed.rows(rows);
  ops_.layer_norm(stream, hidden, weights_.post_ln.weight.view(), weights_.post_ln.bias.view(),
                  kLayerNormEps, normed);
  ops_.linear(stream, {.x = normed,
                       .weight = weights_.lm_head.weight.get(),
                       .bias = weights_.lm_head.bias.view(),
                       .y = a.logits.rows(rows)});
}

}  // namespace fovea
