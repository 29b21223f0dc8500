#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fovea/result.h"

#include "backend/buffer.h"
#include "backend/device.h"
#include "engine/kv_cache.h"
#include "engine/sequence.h"
#include "engine/skill.h"
#include "image/crops.h"
#include "model/activations.h"
#include "model/model.h"

namespace fovea {

/// How the next token is drawn. Resolved: nothing optional is left.
struct Sampling {
  float temperature = 0;
  float top_p = 1;
  float min_p = 0;
  int top_k = 0;
  std::uint64_t seed = 0;
};

struct RunnerOptions {
  bool sample_coordinates = false;     ///< draw bins with the request's sampling, not argmax
  bool round_outputs_to_bf16 = false;  ///< reported coordinates and sizes are rounded
};

/// Turns sequences into passes of the model: fills the batch's arrays, runs vision and text,
/// samples, reads the result back. Owns the scratch and the step's inputs, allocated once. One
/// thread.
class ModelRunner {
 public:
  /// The device, model and cache must outlive the runner. Error: kResourceExhausted.
  static Result<std::unique_ptr<ModelRunner>> create(Device& device, const Model& model,
                                                     PagedKvCache& cache,
                                                     const RunnerOptions& options);

  /// Crops of one picture -> its embeddings [image_tokens, D], owned by the caller.
  Result<Tensor> encode_picture(const Crops& crops);

  /// Runs every position of the sequence that is not in the cache yet (pages must be reserved), in
  /// passes of at most max_rows; the picture's prefix stays whole.
  Status compute(const Sequence& sequence);

  /// Draws the next token from the last position that compute() ran. `position` counts the
  /// generated tokens.
  Result<SampledToken> sample(const TokenRule& rule, const Sampling& sampling, int position);

  /// The scratch, for its sizes and for looking at stages in tests.
  Activations& activations() { return activations_; }

 private:
  ModelRunner(Device& device, const Model& model, PagedKvCache& cache, const RunnerOptions& options)
      : device_(device), model_(model), cache_(cache), options_(options) {}

  Status run_rows(const Sequence& sequence, int begin, int end);
  Status embed_regions(const Sequence& sequence, int begin, int end,
                       std::vector<EmbeddedRows>& embedded);
  Status encode_region_rows(Token::Kind kind, const std::vector<float>& values,
                            const std::vector<std::int32_t>& rows, std::int64_t first_slot,
                            std::vector<EmbeddedRows>& embedded);
  Result<std::pair<TokenId, float>> sample_word(const TokenRule& rule, const Sampling& sampling,
                                                int position);
  struct Bins {
    std::int32_t first = 0, second = 0;
    float localisation = 1;
  };
  Result<Bins> choose_bins(TensorView logits, int groups, const Sampling& sampling, int position);
  float reported(float value) const;

  Device& device_;
  const Model& model_;
  PagedKvCache& cache_;
  RunnerOptions options_;
  std::unique_ptr<Stream> stream_;
  Activations activations_;
  // The step's inputs and outputs, at fixed addresses.
  Tensor crops_;                                        // u8 [max_crops_per_pass, C, C, 3]
  Tensor token_ids_, positions_, slots_, image_rows_;   // i32 [max_rows]
  Tensor last_rows_;                                    // i32 [1]
  Tensor region_rows_, region_values_, region_embeds_;  // [max_region_rows], [.., 2], [.., D]
  Tensor chosen_ids_, chosen_logprobs_;                 // [2]: one word, or two bins
};

}  // namespace fovea
