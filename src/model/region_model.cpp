#include "model/region_model.h"

#include <cmath>

namespace fovea {

void RegionModel::encode(Stream& stream, TensorView values, const Tensor& frequencies,
                         const Linear& encoder, Activations& scratch, TensorView embeddings) const {
  const std::int64_t num_rows = values.shape[0], num_features = encoder.weight->cols();
  TensorView features = scratch.text.region_features.view();
  features.shape = {num_rows,
                    num_features};  // the buffer is as large as the wider of the two encoders
  ops_.fourier_features(stream, values, frequencies.view(), choices_.round_to_bf16, features);
  ops_.linear(stream, {.x = features,
                       .weight = encoder.weight.get(),
                       .bias = encoder.bias.view(),
                       .y = embeddings});
}

void RegionModel::encode_coords(Stream& stream, TensorView values, Activations& scratch,
                                TensorView embeddings) const {
  encode(stream, values, weights_.coord_features, weights_.coord_encoder, scratch, embeddings);
}

void RegionModel::encode_sizes(Stream& stream, TensorView values, Activations& scratch,
                               TensorView embeddings) const {
  encode(stream, values, weights_.size_features, weights_.size_encoder, scratch, embeddings);
}

TensorView RegionModel::decode(Stream& stream, TensorView hidden, const RegionDecoder& decoder,
                               int num_bins, Activations& scratch) const {
  const std::int64_t rows = hidden.shape[0];
  TensorView input = hidden;
  if (weights_.ln) {
    input = scratch.text.region_normed.rows(rows);
    ops_.layer_norm(stream, hidden, weights_.ln->weight.view(), weights_.ln->bias.view(),
                    kLayerNormEps, input);
  }
  TensorView logits = scratch.text.bin_logits.view();
  logits.shape = {rows, num_bins};
  if (!decoder.fc2) {
    ops_.linear(stream, {.x = input,
                         .weight = decoder.fc1.weight.get(),
                         .bias = decoder.fc1.bias.view(),
                         .y = logits});
    return logits;
  }
  const TensorView inner = scratch.text.region_inner.rows(rows);
  ops_.linear(stream,
              {.x = input,
               .weight = decoder.fc1.weight.get(),
               .bias = decoder.fc1.bias.view(),
               .activation = choices_.erf_gelu ? Activation::kGeluErf : Activation::kGeluTanh,
               .y = inner});
  ops_.linear(stream, {.x = inner,
                       .weight = decoder.fc2->weight.get(),
                       .bias = decoder.fc2->bias.view(),
                       .y = logits});
  return logits;
}

TensorView RegionModel::coord_logits(Stream& stream, TensorView hidden,
                                     Activations& scratch) const {
  return decode(stream, hidden, weights_.coord_decoder, config_.coord_out_dim, scratch);
}

TensorView RegionModel::size_logits(Stream& stream, TensorView hidden, Activations& scratch) const {
  return decode(stream, hidden, weights_.size_decoder, config_.size_out_dim, scratch);
}

float RegionModel::coord_value(int bin) const {
  return static_cast<float>(bin) / static_cast<float>(choices_.coordinate_divisor);
}

float RegionModel::size_value(int bin) const {
  // In the reference's order of operations: other orders differ in the last digits.
  const int last = config_.size_out_dim / 2 - 1;
  return std::exp2(static_cast<float>(bin) / static_cast<float>(last) * 10.0f - 10.0f);
}

}  // namespace fovea
