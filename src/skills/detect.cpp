#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/try.h"
#include "skills/region_list.h"
#include "skills/registry.h"
#include "skills/validation.h"

namespace fovea::skills {
namespace {

// x y size x y size ... end-of-sequence. An unfinished object is dropped.
class DetectState final : public SkillState {
 public:
  DetectState(const SkillContext& context, std::vector<Token> prompt, int max_new_tokens)
      : context_(context),
        slots_(context.prompts),
        prompt_(std::move(prompt)),
        max_new_tokens_(max_new_tokens) {}

  const std::vector<Token>& prompt() const override { return prompt_; }
  int max_new_tokens() const override { return max_new_tokens_; }

  TokenRule next_rule() const override {
    if (!x_) return slots_.object_or_end();
    return y_ ? slots_.size() : slots_.coordinate();
  }

  std::optional<RuleAhead> rule_ahead() const override {
    if (!x_) return RuleAhead{Token::Kind::kCoord, slots_.coordinate()};
    if (!y_) return RuleAhead{Token::Kind::kCoord, slots_.size()};
    return RuleAhead{Token::Kind::kSize, slots_.object_or_end()};
  }

  Progress consume(const SampledToken& sampled) override {
    if (sampled.token.kind == Token::Kind::kText) return Progress::kStop;
    if (!x_) {
      x_ = sampled;
    } else if (!y_) {
      y_ = sampled;
    } else {
      add_box(sampled);
      x_.reset();
      y_.reset();
    }
    return Progress::kContinue;
  }

  void finish(Response& response) override { response.boxes = std::move(boxes_); }

 private:
  void add_box(const SampledToken& size) {
    const double x = x_->token.a, y = y_->token.a;
    const double half_width = double{size.token.a} / 2, half_height = double{size.token.b} / 2;
    Box box{x - half_width, y - half_height, x + half_width, y + half_height, 0};
    if (context_.compatibility.clamp_boxes) {
      for (double* edge : {&box.x_min, &box.y_min, &box.x_max, &box.y_max})
        *edge = std::clamp(*edge, 0.0, 1.0);
    }
    // The size's probability is that of width and height together: it counts for two of the four
    // numbers.
    const float side = std::sqrt(size.localisation);
    box.confidence =
        region_confidence(context_.prompts, *x_, {x_->localisation, y_->localisation, side, side});
    boxes_.push_back(box);
  }

  SkillContext context_;
  RegionSlots slots_;
  std::vector<Token> prompt_;
  int max_new_tokens_;
  std::optional<SampledToken> x_, y_;
  std::vector<Box> boxes_;
};

}  // namespace

Result<std::unique_ptr<SkillState>> make_detect(const SkillContext& context, const Request& request,
                                                const DetectRequest& detect) {
  const PromptConfig& prompts = context.prompts;
  if (!prompts.detect) return error(ErrorCode::kUnsupported, "this model cannot detect");
  FOVEA_TRY_STATUS(require_picture("detect", request));
  FOVEA_TRY(const std::string object, check_text("object", detect.object));
  FOVEA_TRY_STATUS(check_max_objects(detect.max_objects));
  std::vector<Token> prompt;
  append_words(prompt, prompts.detect->prefix);
  append_words(prompt, context.tokenizer.encode(" " + object));
  append_words(prompt, prompts.detect->suffix);
  // Three tokens an object and one for the end.
  const int budget = 3 * detect.max_objects.value_or(kDefaultMaxObjects) + 1;
  return std::unique_ptr<SkillState>(
      std::make_unique<DetectState>(context, std::move(prompt), budget));
}

}  // namespace fovea::skills
