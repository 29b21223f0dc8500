#include "base/error.h"
#include "base/try.h"
#include "skills/registry.h"
#include "skills/text_collector.h"
#include "skills/validation.h"

namespace fovea::skills {
namespace {

// Words until end-of-sequence.
class CaptionState final : public SkillState {
 public:
  CaptionState(const SkillContext& context, const Request& request, std::vector<Token> prompt)
      : context_(context),
        prompt_(std::move(prompt)),
        max_new_tokens_(request.sampling.max_tokens.value_or(kDefaultMaxTokens)),
        text_(context.tokenizer, request.sampling.stop) {}

  const std::vector<Token>& prompt() const override { return prompt_; }
  int max_new_tokens() const override { return max_new_tokens_; }

  TokenRule next_rule() const override {
    return {.allowed = {},
            .suppressed = context_.prompts.answer_suppressed,
            .slot = context_.compatibility.embed_text_coordinates ? TokenRule::Slot::kById
                                                                  : TokenRule::Slot::kNever};
  }

  std::optional<RuleAhead> rule_ahead() const override {
    return RuleAhead{Token::Kind::kText, next_rule()};
  }

  Progress consume(const SampledToken& sampled) override {
    const Token& token = sampled.token;
    if (token.id == context_.prompts.eos) return Progress::kStop;
    if (token.kind == Token::Kind::kText && text_.push(token.id)) return Progress::kStop;
    return Progress::kContinue;
  }

  std::string take_text() override { return text_.take(); }

  void finish(Response& response) override {
    text_.finish();
    response.text = text_.text();
  }

 private:
  SkillContext context_;
  std::vector<Token> prompt_;
  int max_new_tokens_;
  TextCollector text_;
};

}  // namespace

Result<std::unique_ptr<SkillState>> make_caption(const SkillContext& context,
                                                 const Request& request,
                                                 const CaptionRequest& caption) {
  FOVEA_TRY_STATUS(require_picture("caption", request));
  const PromptConfig& prompts = context.prompts;
  const char* length_name = "normal";
  const std::vector<TokenId>* words = &prompts.caption_normal;
  if (caption.length == CaptionLength::kShort) {
    length_name = "short";
    words = &prompts.caption_short;
  } else if (caption.length == CaptionLength::kLong) {
    length_name = "long";
    words = &prompts.caption_long;
  }
  if (words->empty()) {
    return error(ErrorCode::kUnsupported, "this model cannot write captions of length {}",
                 length_name);
  }
  std::vector<Token> prompt;
  append_words(prompt, *words);
  return std::unique_ptr<SkillState>(
      std::make_unique<CaptionState>(context, request, std::move(prompt)));
}

}  // namespace fovea::skills
