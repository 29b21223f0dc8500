#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "fovea/request.h"

#include "base/ids.h"

namespace fovea {

/// How the tokens of an answer are drawn. Resolved: nothing optional is left.
struct Sampling {
  float temperature = 0;
  float top_p = 1;
  float min_p = 0;
  int top_k = 0;
  std::uint64_t seed = 0;
  float repetition_penalty = 1;  ///< divides positive and multiplies negative logits of words seen
  float presence_penalty = 0;    ///< subtracted once for words of the answer
  float frequency_penalty = 0;   ///< subtracted for each time a word is in the answer
  std::vector<std::pair<TokenId, float>> logit_bias;
  int num_top_logprobs = -1;  ///< alternatives to report with each token; -1 = no log-probs at all

  bool has_penalties() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
};

/// What a request asks for, with its skill's defaults: words are drawn a little warm, coordinates
/// greedily.
Sampling resolve_sampling(const Request& request);

}  // namespace fovea
