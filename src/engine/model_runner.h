#pragma once

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/step_runner.h"
#include "model/activations.h"
#include "model/adapter_slots.h"
#include "model/forward_batch.h"
#include "model/model.h"

namespace fovea {

struct RunnerOptions {
  bool sample_coordinates = false;         ///< draw bins with the request's sampling, not argmax
  bool round_outputs_to_bf16 = false;      ///< reported coordinates and sizes are rounded
  int max_sequences = 1;                   ///< of a step
  const AdapterSlots* adapters = nullptr;  ///< must outlive the runner; null = there are none
};

/// Turns a step's plan into passes of the model: crops through the vision encoder, the rows of all
/// sequences through the text model at once, one draw for all that want a word, region heads for
/// the rows that drew a number. Owns the scratch and the step's inputs, allocated once. One thread.
class ModelRunner final : public StepRunner {
 public:
  /// The device, model and cache must outlive the runner. Error: kResourceExhausted.
  static Result<std::unique_ptr<ModelRunner>> create(Device& device, const Model& model,
                                                     PagedKvCache& cache,
                                                     const RunnerOptions& options);

  int depth() const override { return 1; }
  Status launch(const StepPlan& plan) override;
  Result<StepOutput> collect() override;
  Result<std::shared_ptr<const EncodedImage>> upload(const ImageIdentity& identity,
                                                     const HostEmbeddings& embeddings) override;
  Result<HostEmbeddings> download(const EncodedImage& image) override;

  /// Rows and crops that a step may have.
  int max_rows() const { return activations_.limits.max_rows; }
  int max_crops() const { return activations_.limits.max_crops_per_pass; }

  /// The scratch, for its sizes and for looking at stages in tests.
  Activations& activations() { return activations_; }

 private:
  ModelRunner(Device& device, const Model& model, PagedKvCache& cache, const RunnerOptions& options)
      : device_(device), model_(model), cache_(cache), options_(options) {}

  void copy_pages(const StepPlan& plan);
  Status encode_crops(const StepPlan& plan);
  Status compute_rows(const StepPlan& plan);
  void gather_inputs(const StepPlan& plan);
  Status draw(const StepPlan& plan, std::vector<SampledToken>& tokens);
  Status draw_words(const StepPlan& plan, std::vector<SampledToken>& tokens);
  Status read_numbers(const StepPlan& plan, Token::Kind kind, std::vector<SampledToken>& tokens);
  SamplingRow sampling_row(const PlannedRows& rows);
  float reported(float value) const;

  Device& device_;
  const Model& model_;
  PagedKvCache& cache_;
  RunnerOptions options_;
  std::unique_ptr<Stream> stream_;
  Activations activations_;
  // The step's inputs and outputs on the device, at fixed addresses. R = max_rows, S =
  // max_sequences.
  Tensor crops_;                          // u8 [max_crops, C, C, 3]
  Tensor crop_rows_;                      // i32 [max_crops * tokens]: 0, 1, 2, ...
  Tensor token_ids_, positions_, slots_;  // i32 [R]
  Tensor image_rows_, region_rows_;       // i32 [R]
  Tensor region_values_, region_embeds_;  // f32 [R, 2], [R, D]
  Tensor last_rows_, number_rows_;        // i32 [S]
  Tensor number_hidden_;                  // [S, D]
  Tensor chosen_ids_, chosen_logprobs_;   // i32 and f32 [2 S]: a word each, or two bins
  Tensor top_ids_, top_logprobs_;         // i32 and f32 [S, kMaxTopWords]

  // Host memory that the stream reads while a step runs.
  struct Inputs {
    std::vector<std::int32_t> copy_from, copy_to;
    std::vector<std::int32_t> ids, positions, slots, image_rows, coord_rows, size_rows;
    std::vector<float> coords, sizes;
    std::vector<std::int32_t> query_start, context_len, prefix_len, page_table, adapter_slots;
    std::vector<std::int32_t> last_rows, number_rows;
    std::vector<EmbeddedRows> embedded;
    // Places in plan.rows of the rows that sample: those that choose a word, then the forced ones.
    std::vector<std::size_t> sampling;
    std::size_t num_words = 0;
    std::vector<SamplingRow> draws;
    std::vector<std::int32_t> mask_ids;
    std::vector<SeenWord> seen;
    std::vector<WordBias> biases;
    bool wants_top = false;
  };
  Inputs in_;
  std::deque<StepOutput> done_;
};

}  // namespace fovea
