#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/packed_table.h"
#include "engine/step_inputs.h"
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
  int depth = 1;                           ///< steps in flight
  const AdapterSlots* adapters = nullptr;  ///< must outlive the runner; null = there are none
};

/// Turns a step's plan into passes of the model: crops through the vision encoder, the rows of all
/// sequences through the text model at once, one draw for all that want a word, region heads for
/// the rows that may draw a number. Owns the scratch and the step's inputs, allocated once. One
/// thread.
///
/// launch() only enqueues; what the host needs is downloaded behind it, and collect() waits for
/// that. Tokens and numbers that a step samples stay on the device until the next step has sampled:
/// rows that feed back take them from there.
class ModelRunner final : public StepRunner {
 public:
  /// The device, model and cache must outlive the runner. Error: kResourceExhausted.
  static Result<std::unique_ptr<ModelRunner>> create(Device& device, const Model& model,
                                                     PagedKvCache& cache,
                                                     const RunnerOptions& options);
  /// Waits for what is in flight.
  ~ModelRunner() override;

  int depth() const override { return options_.depth; }
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
  /// Numbers that a step reads off hidden states: of one kind, `groups` bins each.
  struct Numbers {
    std::vector<std::int32_t> bins;
    std::vector<float> mass;
  };
  /// A step in flight: what its stream reads from, and where its results arrive.
  struct Step {
    StepInputs in;
    std::vector<PlannedCrops> crops;
    std::vector<std::pair<std::shared_ptr<PictureJob>, std::shared_ptr<EncodedImage>>> pictures;
    std::vector<std::int32_t> drawn;  // words, then the bits of their log-probs; see drawn_
    std::vector<std::int32_t> top_words;
    std::vector<float> top_logprobs;
    Numbers coords, sizes;
    Tensor late_hidden;                 // [S, D] of rows whose word decides whether it is a number
    double vision_ms = 0, text_ms = 0;  // of the host; the stream may know better
    std::uint64_t began = 0, encoded = 0, done = 0;  // the stream's marks
    bool was_tried = false;                          // to be collected, and there was no memory
  };

  ModelRunner(Device& device, const Model& model, PagedKvCache& cache, const RunnerOptions& options)
      : device_(device), model_(model), cache_(cache), options_(options) {}

  Status make_tables();
  void copy_pages(const StepPlan& plan, Step& step);
  void choose_crops(const StepPlan& plan, Step& step);
  void encode_crops(Step& step);
  void compute_rows(const StepPlan& plan, Step& step);
  /// Rows whose embeddings are computed from numbers, of one kind: those that the host knows, then
  /// those that the step before sampled.
  struct NumberRows {
    TensorView rows;
    TensorView fed_places;
  };
  NumberRows pack_numbers(Token::Kind kind, const StepInputs& in);
  void put_words(TensorView rows, TensorView places, TensorView token_ids);
  void embed_numbers(Token::Kind kind, const StepInputs& in, const NumberRows& packed,
                     std::vector<EmbeddedRows>& embedded);
  void draw_words(const StepPlan& plan, Step& step);
  TensorView sampled_words() const { return drawn_.rows(options_.max_sequences); }
  TensorView drawn_logprobs(std::int64_t count) const;
  void read_numbers(Token::Kind kind, std::span<const std::int32_t> places, TensorView hidden,
                    std::span<const std::int32_t> hidden_rows, Step& step, Numbers& numbers);
  void keep_numbers(Token::Kind kind, std::span<const std::int32_t> places);
  Result<StepOutput> read(Step& step);
  Status read_late_numbers(Step& step, std::vector<SampledToken>& tokens);
  void set_number(Token::Kind kind, const Numbers& numbers, std::size_t index,
                  SampledToken& token) const;
  float reported(float value) const;

  Device& device_;
  const Model& model_;
  PagedKvCache& cache_;
  RunnerOptions options_;
  std::unique_ptr<Stream> stream_;
  Activations activations_;
  // The step's inputs and outputs on the device, at fixed addresses; steps take turns with them in
  // the stream's order. R = max_rows, S = max_sequences.
  Tensor crops_;                        // u8 [max_crops, C, C, 3]
  Tensor crop_rows_;                    // i32 [max_crops * tokens]: 0, 1, 2, ...
  PackedTable table_;                   // what compute_rows() brings
  Tensor coord_values_, size_values_;   // f32 [R, 1], [R, 2]
  Tensor coord_embeds_, size_embeds_;   // [R, D]
  Tensor number_rows_, number_places_;  // i32 [S]
  Tensor number_hidden_;                // [S, D]
  Tensor bins_, mass_;                  // i32 and f32 [2 S]
  Tensor number_values_;                // f32 [2 S]
  Tensor top_ids_, top_logprobs_;       // i32 and f32 [S, kMaxTopWords]
  Tensor fed_words_;                    // i32 [S]
  // What the last step sampled, by its place among those that sample.
  Tensor drawn_;                           // i32 [2 S]: words, and behind them their log-probs
  Tensor sampled_coords_, sampled_sizes_;  // f32 [S, 1], [S, 2]
  Tensor coord_table_, size_table_;        // f32 [bins, 1]: what a bin means

  std::vector<Step> steps_;  // a ring, as long as the pipeline is deep
  std::size_t next_launch_ = 0, next_collect_ = 0, num_in_flight_ = 0;
  StepInputs::Places no_places_;
};

}  // namespace fovea
