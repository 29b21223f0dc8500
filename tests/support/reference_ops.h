#pragma once

// What every operation means, in double precision and plain loops: the yardstick of the conformance
// tests. Inputs are the floats that the backend was given (weights already rounded to their
// storage); shapes as in backend/ops.h.

#include <cstdint>
#include <span>
#include <vector>

namespace fovea::reference {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using Ints = std::vector<std::int32_t>;

double gelu_tanh(double x);
double gelu_erf(double x);

/// x [m, k] . w [n, k]^T, row r of w counted scale[r] times (empty = 1), + bias (or empty).
Doubles linear(const Floats& x, const Floats& w, const Floats& scale, const Floats& bias,
               std::int64_t m, std::int64_t n, std::int64_t k);

/// Attention of one head. q [rows, head_dim], k and v [keys, head_dim]; row r sees visible[r]
/// leading keys.
Doubles attention(const Doubles& q, const Doubles& k, const Doubles& v,
                  const std::vector<std::int64_t>& visible, std::int64_t head_dim);

Doubles layer_norm(const Floats& x, const Floats& weight, const Floats& bias, double eps,
                   std::int64_t width);

Floats patchify(const std::vector<std::uint8_t>& crops, const Floats& values,
                std::int64_t num_crops, std::int64_t side, std::int64_t patch);

/// Stitches the tiles into one map first, then pools it.
Doubles stitch_and_pool(const Floats& features, std::int64_t tile_rows, std::int64_t tile_cols,
                        std::int64_t grid, std::int64_t width, std::int64_t margin);

/// Rotates one head in place; table [rotary / 2][cos, sin].
void rotate(std::span<double> head, std::span<const float> table);

/// y [rows, outputs] += b^T (a x): x [rows, inputs], a [rank, inputs], b [rank, outputs].
void lora(std::span<const float> x, std::span<const float> a, std::span<const float> b,
          std::int64_t rank, std::span<double> y);

/// Mixture of experts: up[e] [2 inner, dim], down[e] [dim, inner]; y [rows, dim] is added to.
void moe_mlp(const Floats& x, const Ints& experts, const Floats& weights,
             const std::vector<Floats>& up, const std::vector<Floats>& down, std::int64_t k,
             std::int64_t dim, std::int64_t inner, Doubles& y);

Doubles fourier_features(const Floats& values, const Floats& frequencies, std::int64_t inputs,
                         bool round_to_bf16);

/// What happens to logits before a word is drawn. Counts are occurrences in the answer; 0 = in the
/// prompt alone.
struct LogitChanges {
  double repetition_penalty = 1;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  Ints seen_ids{};
  Ints seen_counts{};
  Ints bias_ids{};
  Floats bias{};
  Ints allowed{};  ///< empty = all
};
/// Log softmax of the changed logits; -infinity for words that are not allowed.
Doubles changed_logprobs(std::span<const float> logits, const LogitChanges& changes);

/// softmax(logits / temperature).
Doubles softmax(std::span<const float> logits, double temperature = 1);

}  // namespace fovea::reference
