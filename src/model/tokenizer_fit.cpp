#include "model/tokenizer_fit.h"

#include <array>
#include <utility>

#include "base/error.h"
#include "base/try.h"

namespace fovea {

Status check_tokenizer_fits(const Tokenizer& tokenizer, const ModelConfig& config) {
  const PromptConfig& prompts = config.prompts;
  if (tokenizer.size() > config.text.vocab_size) {
    return error(
        ErrorCode::kFailedPrecondition,
        "the tokenizer does not fit the model: it has {} ids, the model's vocabulary {} rows",
        tokenizer.size(), config.text.vocab_size);
  }
  const std::array<std::pair<const char*, std::optional<TokenId>>, 8> control_ids{{
      {"beginning of sequence", prompts.bos},
      {"end of sequence", prompts.eos},
      {"answer", prompts.answer},
      {"thinking", prompts.thinking},
      {"coordinate", prompts.coord},
      {"size", prompts.size},
      {"start of grounding", prompts.start_ground_points},
      {"end of grounding", prompts.end_ground},
  }};
  for (const auto& [role, id] : control_ids) {
    if (!id || tokenizer.is_special(*id)) continue;
    return error(ErrorCode::kFailedPrecondition,
                 "the tokenizer does not fit the model: id {} must be the control token for {}, "
                 "but there it is the "
                 "word \"{}\"; {} weights need another tokenizer file",
                 id->value(), role, tokenizer.token_bytes(*id), config.family);
  }
  if (prompts.known_word &&
      tokenizer.token_bytes(prompts.known_word->id) != prompts.known_word->text) {
    return error(ErrorCode::kFailedPrecondition,
                 "the tokenizer does not fit the model: id {} must be \"{}\", but there it is "
                 "\"{}\"; {} weights need "
                 "another tokenizer file",
                 prompts.known_word->id.value(), prompts.known_word->text,
                 tokenizer.token_bytes(prompts.known_word->id), config.family);
  }
  return {};
}

}  // namespace fovea
