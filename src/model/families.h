#pragma once

#include "fovea/result.h"

#include "model/config.h"

namespace fovea {

/// Fills in what tensor shapes cannot tell: name, head counts, rotary base, context length, experts
/// per token, control ids and prompt templates. The shapes in `config` choose the family: tau or
/// experts mean Moondream 3, a width of 1024 the 0.5B model; older spellings of the tensor names
/// mean a Moondream 2 from before June 2025, whose vocabulary is GPT-2's.
void describe_family(bool legacy_spelling, ModelConfig& config);

/// Openers, forced and suppressed ids that follow from the query suffix and the control ids.
/// Moondream 2 ends a question with its suffix twice, forces one more between reasoning and answer,
/// and never says the answer token; Moondream 3 has none of that.
void derive_decoding_rules(const std::vector<TokenId>& query_suffix, bool moondream3,
                           PromptConfig& prompts);

/// KV heads from the rows of the QKV matrix: rows = (n_heads + 2 n_kv_heads) head_dim.
Status derive_kv_heads(int qkv_rows, TextConfig& text);

}  // namespace fovea
