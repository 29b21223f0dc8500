#pragma once

#include <span>

#include "backend/ops.h"
#include "model/activations.h"
#include "model/adapter.h"
#include "model/config.h"
#include "model/forward_batch.h"
#include "model/weights.h"

namespace fovea {

/// The decoder (Phi-1.5 lineage: attention and MLP in parallel, partial rotary embedding, prefix-LM
/// mask). Read forward() first, then block().
class TextModel {
 public:
  /// The configuration and weights must outlive the model.
  TextModel(const TextConfig& config, const TextWeights& weights, Ops& ops, int page_size,
            Activation tau_activation);

  /// Runs the step's rows through every layer, writing their K and V into `cache` (one KvPages a
  /// layer). Leaves the last layer's output of batch.last_rows, before the final norm, in
  /// scratch.text.hidden [S, D]. Rows of sequences with an adapter slot get that adapter in every
  /// linear that it has a pair for; without any, nothing is spent on them.
  void forward(Stream& stream, const ForwardBatch& batch, std::span<const KvPages> cache,
               Activations& scratch) const;

  /// hidden [S, D] -> scratch.text.logits [S, vocab].
  void logits(Stream& stream, TensorView hidden, Activations& scratch) const;

 private:
  void block(Stream& stream, int layer, const ForwardBatch& batch, const KvPages& pages,
             TextActivations& a) const;
  void mlp(Stream& stream, int layer, const ForwardBatch& batch, const LinearArgs& proj,
           TextActivations& a) const;
  void experts(Stream& stream, int layer, const ForwardBatch& batch, const LinearArgs& proj,
               TextActivations& a) const;
  // y += what the batch's adapters make of x for this linear.
  void adapt(Stream& stream, int layer, LoraTarget target, const ForwardBatch& batch, TensorView x,
             TensorView y) const;

  const TextConfig& config_;
  const TextWeights& weights_;
  Ops& ops_;
  HeadLayout heads_;
  Activation tau_activation_;
};

}  // namespace fovea
