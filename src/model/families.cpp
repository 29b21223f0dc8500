#include "model/families.h"

#include "base/error.h"

namespace fovea {
namespace {

constexpr int kTextHeadDim = 64;    // every published text model
constexpr int kVisionHeadDim = 72;  // every published vision encoder

std::vector<TokenId> ids(std::initializer_list<int> values) {
  std::vector<TokenId> tokens;
  for (const int value : values) tokens.emplace_back(value);
  return tokens;
}

// The vocabulary of Moondream 2 since June 2025 and of Moondream 3: ids 0..20 are control tokens.
PromptConfig starmie_prompts(bool moondream3) {
  PromptConfig prompts;
  prompts.bos = prompts.eos = TokenId{0};
  prompts.answer = TokenId{3};
  prompts.thinking = TokenId{4};
  prompts.coord = TokenId{5};
  prompts.size = TokenId{6};
  prompts.start_ground_points = TokenId{7};
  prompts.end_ground = TokenId{9};
  prompts.caption_short = ids({1, 32708, 2, 12492, 3});
  prompts.caption_normal = ids({1, 32708, 2, 6382, 3});
  prompts.caption_long = ids({1, 32708, 2, 4059, 3});
  prompts.query = PromptTemplate{ids({1, 15381, 2}), ids({3})};
  prompts.detect = PromptTemplate{ids({1, 7235, 476, 2}), ids({3})};
  prompts.point = PromptTemplate{ids({1, 2581, 2}), ids({3})};
  prompts.known_word = KnownWord{TokenId{15381}, "query"};
  derive_decoding_rules(prompts.query->suffix, moondream3, prompts);
  return prompts;
}

// GPT-2's vocabulary: the 0.5B model and Moondream 2 before June 2025. No control tokens but the
// end of text: prompts are plain words ("\n\nQuestion:", "\n\nAnswer:", "\n\nShort caption:", ...).
PromptConfig gpt2_prompts() {
  PromptConfig prompts;
  prompts.bos = prompts.eos = TokenId{50256};
  prompts.caption_short = ids({198, 198, 16438, 8305, 25});
  prompts.caption_normal = ids({198, 198, 24334, 1159, 25});
  prompts.query = PromptTemplate{ids({198, 198, 24361, 25}), ids({198, 198, 33706, 25})};
  prompts.detect = PromptTemplate{ids({198, 198, 47504, 25}), ids({628})};
  prompts.point = PromptTemplate{ids({198, 198, 12727, 25}), ids({628})};
  prompts.known_word = KnownWord{TokenId{24361}, "Question"};
  prompts.answer_opener = prompts.query->suffix;
  return prompts;
}

}  // namespace

void describe_family(bool legacy_spelling, ModelConfig& config) {
  TextConfig& text = config.text;
  text.n_heads = text.dim / kTextHeadDim;
  config.vision.enc_n_heads = config.vision.enc_dim / kVisionHeadDim;
  if (text.tau || text.moe) {
    config.family = "moondream3";
    text.rope_theta = 1'500'000;
    text.max_context = 32'768;
    if (text.moe) text.moe->experts_per_token = 8;
    config.prompts = starmie_prompts(true);
    return;
  }
  text.rope_theta = 10'000;
  text.max_context = 2048;
  if (text.dim == 1024) {
    config.family = "moondream-0.5b";
    config.prompts = gpt2_prompts();
  } else if (legacy_spelling) {
    config.family = "moondream2-gpt2";
    config.prompts = gpt2_prompts();
  } else {
    config.family = "moondream2";
    config.prompts = starmie_prompts(false);
  }
}

void derive_decoding_rules(const std::vector<TokenId>& query_suffix, bool moondream3,
                           PromptConfig& prompts) {
  prompts.answer_opener = query_suffix;
  prompts.reasoning_opener.clear();
  prompts.post_reasoning.clear();
  prompts.answer_suppressed.clear();
  prompts.reasoning_suppressed.clear();
  prompts.reasoning_by_default = moondream3;
  if (moondream3) {
    if (prompts.thinking) prompts.reasoning_opener = {*prompts.thinking};
    return;
  }
  if (!prompts.answer) return;
  prompts.answer_opener.insert(prompts.answer_opener.end(), query_suffix.begin(),
                               query_suffix.end());
  prompts.answer_suppressed = {*prompts.answer};
  if (!prompts.thinking) return;
  prompts.reasoning_opener = query_suffix;
  prompts.reasoning_opener.push_back(*prompts.thinking);
  prompts.post_reasoning = query_suffix;
  prompts.reasoning_suppressed = {prompts.eos};
  if (prompts.size) prompts.reasoning_suppressed.push_back(*prompts.size);
}

Status derive_kv_heads(int qkv_rows, TextConfig& text) {
  const int head_dim = text.dim / text.n_heads;
  if (text.dim % text.n_heads != 0 || head_dim == 0 || qkv_rows % head_dim != 0 ||
      (qkv_rows / head_dim - text.n_heads) % 2 != 0 || qkv_rows / head_dim <= text.n_heads) {
    return invalid_argument(
        "tensor text.blocks.0.attn.qkv: {} rows do not hold {} query heads of {} with their keys "
        "and values",
        qkv_rows, text.n_heads, head_dim);
  }
  text.n_kv_heads = (qkv_rows / head_dim - text.n_heads) / 2;
  return {};
}

}  // namespace fovea
