#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "backend/ops.h"
#include "engine/step_plan.h"
#include "model/prompt_config.h"

namespace fovea {

/// A row of a step that samples, and what must be known of it when the step has come back.
struct SamplingPlace {
  /// Where the number comes from that the row's token may carry.
  enum class Number : std::uint8_t {
    kNone,        ///< the token is a word
    kCoord,       ///< a coordinate, unless the answer ends here
    kSize,        ///< a size, unless the answer ends here
    kByChosenId,  ///< the word that is chosen decides: known only when it has come back
  };

  std::size_t row = 0;      ///< in plan.rows
  std::uint64_t order = 0;  ///< of its generation
  TokenId forced{-1};       ///< the only word allowed; -1: one is drawn
  TokenRule::Slot slot = TokenRule::Slot::kById;
  Number number = Number::kNone;
  float temperature = 0, top_p = 1;  ///< for bins that are drawn
  std::uint64_t seed = 0;
  int draw = 0;
  int num_top = 0;
};

/// Where a token that is still on the device goes: the row of this step, and its place among those
/// that the step before sampled.
struct FedRows {
  std::vector<std::int32_t> rows, places;
  std::int64_t count() const { return static_cast<std::int64_t>(rows.size()); }
};

/// What a step brings to the device, laid out on the host, row by row. Stays as it is while the
/// step is in flight, because the stream reads from it. Kept and filled anew for later steps, so
/// that a step allocates nothing once all have grown.
struct StepInputs {
  /// Where each generation's token is among those that a step sampled, and what it may carry.
  struct Place {
    std::int32_t index = 0;
    SamplingPlace::Number number = SamplingPlace::Number::kNone;
  };
  using Places = std::unordered_map<std::uint64_t, Place>;

  /// `before`: the places of the step that was launched last, for rows that feed back.
  void gather(const StepPlan& plan, const PromptConfig& prompts, const Places& before);
  /// Masks, penalties and biases of the words that are drawn.
  void gather_draws(const StepPlan& plan);

  std::vector<std::int32_t> copy_from, copy_to;
  std::vector<std::int32_t> ids, positions, slots, image_rows, coord_rows, size_rows;
  std::vector<float> coords, sizes;
  FedRows fed_words, fed_coords, fed_sizes;
  std::vector<std::int32_t> query_start, context_len, prefix_len, page_table, adapter_slots;

  // In the order in which hidden states are used: words that are drawn, then forced ones.
  std::vector<SamplingPlace> sampling;
  Places places;
  std::vector<std::int32_t> last_rows, forced_ids;
  std::int64_t num_words = 0;  ///< that are drawn
  // Places in `sampling` by where their numbers come from.
  std::vector<std::int32_t> coord_places, size_places, late_places;

  std::vector<SamplingRow> draws, coord_draws, size_draws;
  std::vector<std::int32_t> mask_ids;
  std::vector<SeenWord> seen;
  std::vector<WordBias> biases;
  bool wants_top = false;

 private:
  void add_row(const Token& token, std::int32_t row);
  void add_fed_row(const PlannedRows& rows, std::int32_t row, const Places& before);
  void gather_sampling(const StepPlan& plan, const PromptConfig& prompts);
  SamplingRow sampling_row(const PlannedRows& rows);
};

}  // namespace fovea
