#pragma once

#include "io/tokenizer.h"
#include "model/config.h"

namespace fovea {

/// Refuses a tokenizer that belongs to another model, with an explanation: more ids than the
/// vocabulary has rows, control ids that are plain words there, or a known word under another id.
/// (Repositories of newer weights also carry the stale tokenizer of older ones.) Error:
/// kFailedPrecondition.
Status check_tokenizer_fits(const Tokenizer& tokenizer, const ModelConfig& config);

}  // namespace fovea
