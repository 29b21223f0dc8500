#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/cpu/aligned_memory.h"
#include "backend/cpu/isa/kernel_table.h"
#include "backend/ops.h"

namespace fovea::cpu {

/// Philox4x32-10: four random words that depend on (key, counter) alone.
std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter);

/// The uniform number in [0, 1) that (seed, position) draws with: 53 bits of the first two words.
double uniform_draw(std::uint64_t seed, std::uint64_t position);

struct SampledWord {
  std::int32_t id = 0;
  float logprob = 0;
};

/// A word that may be chosen.
struct Candidate {
  std::int32_t id;
  float logit;
  double mass;  ///< exp((logit - largest) / temperature)
};

/// Kept between calls; one for each thread.
struct SamplerScratch {
  GrowingMemory logits;
  std::vector<std::int32_t> ids;
  std::vector<Candidate> candidates;
  std::vector<SampledWord> top;  ///< what the last sample_word() listed, likeliest first
};

/// Chooses one word of one row of `args`: penalties, biases, masks, temperature, top-k, top-p,
/// min-p, draw; lists the row's num_top likeliest words in scratch.top. NaN logits count as
/// -infinity; when nothing is left the answer is the lowest id that the masks allow, with logprob
/// -infinity. The draw walks the kept words by ascending id until their cumulative mass passes the
/// uniform number. An allowed list costs its own length, not the vocabulary's; without penalties,
/// biases and suppressed words the logits are not copied.
SampledWord sample_word(std::span<const float> logits, const SamplingRow& row,
                        const SampleArgs& args, const KernelTable& kernels,
                        SamplerScratch& scratch);

}  // namespace fovea::cpu
