#include "base/error.h"
#include "base/try.h"
#include "skills/region_list.h"
#include "skills/registry.h"
#include "skills/validation.h"

namespace fovea::skills {
namespace {

// x y x y ... end-of-sequence. An x without its y is dropped.
class PointState final : public SkillState {
 public:
  PointState(const SkillContext& context, std::vector<Token> prompt, int max_new_tokens)
      : context_(context),
        slots_(context.prompts),
        prompt_(std::move(prompt)),
        max_new_tokens_(max_new_tokens) {}

  const std::vector<Token>& prompt() const override { return prompt_; }
  int max_new_tokens() const override { return max_new_tokens_; }
  TokenRule next_rule() const override { return x_ ? slots_.coordinate() : slots_.object_or_end(); }

  std::optional<RuleAhead> rule_ahead() const override {
    return RuleAhead{Token::Kind::kCoord, x_ ? slots_.object_or_end() : slots_.coordinate()};
  }

  Progress consume(const SampledToken& sampled) override {
    if (sampled.token.kind != Token::Kind::kCoord) return Progress::kStop;
    if (!x_) {
      x_ = sampled;
      return Progress::kContinue;
    }
    points_.push_back(
        {x_->token.a, sampled.token.a,
         region_confidence(context_.prompts, *x_, {x_->localisation, sampled.localisation})});
    x_.reset();
    return Progress::kContinue;
  }

  void finish(Response& response) override { response.points = std::move(points_); }

 private:
  SkillContext context_;
  RegionSlots slots_;
  std::vector<Token> prompt_;
  int max_new_tokens_;
  std::optional<SampledToken> x_;
  std::vector<Point> points_;
};

}  // namespace

Result<std::unique_ptr<SkillState>> make_point(const SkillContext& context, const Request& request,
                                               const PointRequest& point) {
  const PromptConfig& prompts = context.prompts;
  if (!prompts.point) return error(ErrorCode::kUnsupported, "this model cannot point");
  FOVEA_TRY_STATUS(require_picture("point", request));
  FOVEA_TRY(const std::string object, check_text("object", point.object));
  FOVEA_TRY_STATUS(check_max_objects(point.max_objects));
  FOVEA_TRY(const std::vector<Token> spatial, spatial_tokens(point.spatial_refs, request, prompts));
  std::vector<Token> prompt;
  append_words(prompt, prompts.point->prefix);
  prompt.insert(prompt.end(), spatial.begin(), spatial.end());
  append_words(prompt, context.tokenizer.encode(" " + object));
  append_words(prompt, prompts.point->suffix);
  // Two tokens a point and one for the end.
  const int budget = point.max_objects ? 2 * *point.max_objects + 1
                                       : request.sampling.max_tokens.value_or(kDefaultMaxTokens);
  return std::unique_ptr<SkillState>(
      std::make_unique<PointState>(context, std::move(prompt), budget));
}

}  // namespace fovea::skills
