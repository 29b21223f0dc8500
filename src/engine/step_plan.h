#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "engine/image_cache.h"
#include "engine/sampling.h"
#include "engine/sequence.h"
#include "engine/skill.h"
#include "image/crops.h"

namespace fovea {

/// A picture on its way through the vision encoder.
struct PictureJob {
  ImageIdentity identity{};
  Crops crops;
  double queued_ms = 0;   ///< when the crops were ready
  double started_ms = 0;  ///< when the first of them was planned
  /// Of the request for it that can wait the longest.
  double deadline_ms = std::numeric_limits<double>::infinity();
  int crops_planned = 0;

  /// Features of the crops encoded so far [num_crops, image_tokens, E]; the runner's.
  Tensor features;
  /// Why it cannot be encoded: the runner had no memory for it. Its crops are passed over.
  std::optional<Error> failure;
  /// The result, once the last crop has been committed.
  std::shared_ptr<const EncodedImage> encoded;
};

/// A request as the scheduler sees it: a sequence, its place in line and its budget.
struct Generation {
  std::optional<Sequence> sequence;  ///< made before it is lined up
  AdapterHandle adapter;             ///< null: none
  Sampling sampling;
  std::int64_t order = 0;  ///< of arrival
  double place_ms = 0;  ///< arrival minus the head start of its priority: the smallest goes first
  double deadline_ms = 0;    ///< on the engine's clock; 0 = none
  bool was_encoded = false;  ///< its picture, for it: giving it up wastes that
  int max_new_tokens = 0;

  enum class State {
    kOutside,  ///< not with the scheduler
    kWaiting,  ///< ready to be admitted
    kRunning,  ///< has pages; rows of it are in every step
    kLeaving,  ///< done, but a step that is in flight still writes to its pages
  };
  // The scheduler's own.
  State state = State::kOutside;
  int steps_in_flight = 0;     ///< launched steps with rows of it that are not committed
  bool awaits_token = false;   ///< a step in flight samples its next token
  bool may_run_ahead = false;  ///< the token after that one can be guessed at; the loop's
  bool guessed_wrong = false;  ///< what runs ahead is worth nothing; the loop's
  int cached_tokens = 0;       ///< positions found in the prefix cache when it was first admitted
  bool was_admitted = false;
  int adapter_slot = kNoAdapter;  ///< while it runs with an adapter
};

/// Rows of one sequence in a step: positions [begin, end).
struct PlannedRows {
  Generation* generation = nullptr;
  std::uint64_t order = 0;  ///< of the generation, for when it may be gone
  int begin = 0;
  int end = 0;
  bool feeds_back = false;  ///< the last position is the token that the step before sampled
  Token::Kind fed_kind = Token::Kind::kText;  ///< of that token, as far as can be told; the loop's
  bool samples = false;                       ///< draw a token from the last position
  TokenRule rule{};      ///< for that token; filled in by the loop, valid until launch() returns
  int draw = 0;          ///< its number among the generated tokens
  bool is_void = false;  ///< ran ahead on a wrong guess: what it sampled is thrown away
};

/// Crops of one picture in a step: [first, first + count).
struct PlannedCrops {
  std::shared_ptr<PictureJob> picture;
  int first = 0;
  int count = 0;
  bool is_last = false;  ///< project the features to embeddings afterwards
};

/// One step of the device: page copies first, then crops, then rows.
struct StepPlan {
  std::vector<Sequence::PageCopy>
      copies;  ///< plus a reference to each `from`, held until committed
  std::vector<PlannedCrops> crops;
  std::vector<PlannedRows> rows;
  int num_rows = 0;
  int num_crops = 0;
  int num_prefill_rows = 0;

  bool empty() const { return crops.empty() && rows.empty(); }
};

}  // namespace fovea
