#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/try.h"
#include "skills/json_schema.h"
#include "skills/registry.h"
#include "skills/text_collector.h"
#include "skills/token_constraint.h"
#include "skills/validation.h"

namespace fovea::skills {
namespace {

int count_code_points(std::string_view utf8) {
  return static_cast<int>(std::count_if(utf8.begin(), utf8.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

/// Reasoning text, and the stretches of it that points belong to. A stretch ends at a grounding
/// token or with the reasoning; it is reported when it has points.
class ReasoningCollector {
 public:
  explicit ReasoningCollector(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void push_word(TokenId id) {
    all_words_.push_back(id);
    stretch_words_.push_back(id);
  }

  // Coordinates come in pairs, x first.
  void push_coord(const SampledToken& sampled) {
    if (!pending_x_) {
      pending_x_ = sampled;
      return;
    }
    stretch_points_.push_back(
        {pending_x_->token.a, sampled.token.a,
         std::sqrt(double{pending_x_->localisation} * double{sampled.localisation})});
    pending_x_.reset();
  }

  void close_stretch() {
    const int length = count_code_points(tokenizer_.decode(stretch_words_));
    if (!stretch_points_.empty())
      grounding_.push_back({offset_, offset_ + length, std::move(stretch_points_)});
    offset_ += length;
    stretch_words_.clear();
    stretch_points_.clear();
    pending_x_.reset();
  }

  Reasoning finish() {
    close_stretch();
    return {tokenizer_.decode(all_words_), std::move(grounding_)};
  }

 private:
  const Tokenizer& tokenizer_;
  std::vector<TokenId> all_words_;
  std::vector<TokenId> stretch_words_;
  std::vector<Point> stretch_points_;
  std::optional<SampledToken> pending_x_;
  std::vector<Grounding> grounding_;
  int offset_ = 0;  // code points in the stretches closed so far
};

class QueryState final : public SkillState {
 public:
  QueryState(const SkillContext& context, const Request& request, std::vector<Token> prompt,
             bool reasoning, std::optional<TokenConstraint> constraint)
      : context_(context),
        prompt_(std::move(prompt)),
        budget_(request.sampling.max_tokens.value_or(kDefaultMaxTokens)),
        reasoning_(reasoning),
        phase_(reasoning ? Phase::kReasoning : Phase::kAnswer),
        reasoning_text_(context.tokenizer),
        answer_(context.tokenizer, request.sampling.stop),
        constraint_(std::move(constraint)) {
    if (context.compatibility.repeat_answer_token) forced_ = context.prompts.post_reasoning;
  }

  const std::vector<Token>& prompt() const override { return prompt_; }

  int max_new_tokens() const override {
    if (!separate_budgets()) return budget_;
    return 2 * budget_ + static_cast<int>(forced_.size()) + 1;
  }

  TokenRule next_rule() const override {
    switch (phase_) {
      case Phase::kReasoning:
        return reasoning_rule(spent_);
      case Phase::kForced:
        return forced_rule(next_forced_);
      case Phase::kAnswer:
        break;
    }
    if (constraint_) {
      const TokenConstraint::Choice& next = constraint_->next();
      return {.allowed = next.allowed, .suppressed = next.suppressed, .slot = Slot::kNever};
    }
    return answer_rule();
  }

  // Words follow words; the end of the reasoning, and numbers in it, come as a surprise.
  std::optional<RuleAhead> rule_ahead() const override {
    switch (phase_) {
      case Phase::kReasoning:
        return RuleAhead{Token::Kind::kText, reasoning_rule(spent_ + 1)};
      case Phase::kForced:
        if (next_forced_ + 1 < forced_.size())
          return RuleAhead{Token::Kind::kText, forced_rule(next_forced_ + 1)};
        break;
      case Phase::kAnswer:
        break;
    }
    if (constraint_) return std::nullopt;
    return RuleAhead{Token::Kind::kText, answer_rule()};
  }

  Progress consume(const SampledToken& sampled) override {
    ++spent_;
    switch (phase_) {
      case Phase::kReasoning:
        return consume_reasoning(sampled);
      case Phase::kForced:
        if (++next_forced_ == forced_.size()) begin_answer();
        return Progress::kContinue;
      case Phase::kAnswer:
        break;
    }
    if (sampled.token.id == context_.prompts.eos) return Progress::kStop;
    // A token that the rule forbids comes from a sampler without numbers to choose by.
    if (constraint_ && !constraint_->advance(sampled.token.id)) return Progress::kLength;
    if (sampled.token.kind == Token::Kind::kText && answer_.push(sampled.token.id))
      return Progress::kStop;
    if (constraint_ && constraint_->is_final()) return Progress::kStop;
    if (separate_budgets() && spent_ >= budget_) return Progress::kLength;
    return Progress::kContinue;
  }

  std::string take_text() override { return answer_.take(); }

  void finish(Response& response) override {
    answer_.finish();
    response.text = answer_.text();
    if (reasoning_) response.reasoning = reasoning_text_.finish();
  }

 private:
  enum class Phase { kReasoning, kForced, kAnswer };
  using Slot = TokenRule::Slot;

  // Once `spent` tokens of the reasoning are there.
  TokenRule reasoning_rule(int spent) const {
    const PromptConfig& prompts = context_.prompts;
    if (separate_budgets() && spent >= budget_)
      return {.allowed = {&*prompts.answer, 1}, .suppressed = {}};
    return {.allowed = {}, .suppressed = prompts.reasoning_suppressed, .slot = Slot::kById};
  }
  TokenRule forced_rule(std::size_t word) const {
    return {.allowed = {&forced_[word], 1}, .suppressed = {}, .slot = Slot::kNever};
  }
  TokenRule answer_rule() const {
    return {.allowed = {},
            .suppressed = context_.prompts.answer_suppressed,
            .slot = context_.compatibility.embed_text_coordinates ? Slot::kById : Slot::kNever};
  }

  bool separate_budgets() const {
    return reasoning_ && context_.compatibility.separate_reasoning_budget;
  }

  void begin_answer() {
    phase_ = Phase::kAnswer;
    spent_ = 0;
  }

  Progress consume_reasoning(const SampledToken& sampled) {
    const PromptConfig& prompts = context_.prompts;
    const Token& token = sampled.token;
    if (token.id == prompts.answer) {
      reasoning_text_.close_stretch();
      if (forced_.empty()) {
        begin_answer();
      } else {
        phase_ = Phase::kForced;
      }
      return Progress::kContinue;
    }
    if (token.id == prompts.eos) return Progress::kStop;
    if (token.id == prompts.start_ground_points || token.id == prompts.end_ground) {
      reasoning_text_.close_stretch();
    } else if (token.kind == Token::Kind::kCoord) {
      reasoning_text_.push_coord(sampled);
    } else if (token.kind == Token::Kind::kText) {
      reasoning_text_.push_word(token.id);
    }
    return Progress::kContinue;
  }

  SkillContext context_;
  std::vector<Token> prompt_;
  int budget_;
  bool reasoning_;
  Phase phase_;
  int spent_ = 0;  // tokens of this phase
  std::vector<TokenId> forced_;
  std::size_t next_forced_ = 0;
  ReasoningCollector reasoning_text_;
  TextCollector answer_;
  std::optional<TokenConstraint> constraint_;  // of the answer
};

// What json_schema holds the answer to.
Result<std::optional<TokenConstraint>> make_constraint(const SkillContext& context,
                                                       const QueryRequest& query) {
  if (!query.json_schema) return std::optional<TokenConstraint>();
  FOVEA_TRY(Grammar grammar, compile_json_schema(*query.json_schema));
  FOVEA_TRY(TokenConstraint constraint,
            TokenConstraint::create(context.token_trie->get(context.tokenizer, context.prompts),
                                    std::move(grammar), context.prompts.eos));
  return std::optional(std::move(constraint));
}

}  // namespace

Result<std::unique_ptr<SkillState>> make_query(const SkillContext& context, const Request& request,
                                               const QueryRequest& query) {
  const PromptConfig& prompts = context.prompts;
  if (!prompts.query) return error(ErrorCode::kUnsupported, "this model cannot answer questions");
  FOVEA_TRY(const std::string question, check_text("question", query.question));
  FOVEA_TRY(const std::vector<Token> spatial, spatial_tokens(query.spatial_refs, request, prompts));
  const bool reasoning = query.reasoning.value_or(prompts.reasoning_by_default);
  if (reasoning && (prompts.reasoning_opener.empty() || !prompts.answer)) {
    return error(ErrorCode::kUnsupported, "this model cannot reason before it answers");
  }
  FOVEA_TRY(std::optional<TokenConstraint> constraint, make_constraint(context, query));
  std::vector<Token> prompt;
  append_words(prompt, prompts.query->prefix);
  prompt.insert(prompt.end(), spatial.begin(), spatial.end());
  append_words(prompt, context.tokenizer.encode(question));
  append_words(prompt, reasoning ? prompts.reasoning_opener : prompts.answer_opener);
  return std::unique_ptr<SkillState>(std::make_unique<QueryState>(
      context, request, std::move(prompt), reasoning, std::move(constraint)));
}

}  // namespace fovea::skills
