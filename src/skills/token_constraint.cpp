#include "skills/token_constraint.h"

#include <algorithm>

#include "base/error.h"

namespace fovea::skills {
namespace {

// Bounds on what is kept: together some tens of megabytes.
constexpr std::size_t kMaxChoices = 128;
constexpr std::size_t kMaxStates = 8192;

std::vector<TokenId> control_tokens(const PromptConfig& prompts) {
  std::vector<TokenId> tokens = prompts.answer_suppressed;
  tokens.insert(tokens.end(), {prompts.bos, prompts.eos});
  for (const auto& token : {prompts.answer, prompts.thinking, prompts.coord, prompts.size,
                            prompts.start_ground_points, prompts.end_ground}) {
    if (token) tokens.push_back(*token);
  }
  return tokens;
}

}  // namespace

TokenTrie::TokenTrie(const Tokenizer& tokenizer, const PromptConfig& prompts)
    : tokenizer_(tokenizer), is_word_(static_cast<std::size_t>(tokenizer.size()), false) {
  const std::vector<TokenId> control = control_tokens(prompts);
  ByteSet single;
  for (std::int32_t id = 0; id < tokenizer_.size(); ++id) {
    const std::string_view bytes = tokenizer_.token_bytes(TokenId(id));
    if (bytes.empty() || std::find(control.begin(), control.end(), TokenId(id)) != control.end()) {
      continue;
    }
    words_.push_back({TokenId(id), 0, bytes});
    is_word_[static_cast<std::size_t>(id)] = true;
    longest_ = std::max(longest_, bytes.size());
    if (bytes.size() == 1) single.set(static_cast<unsigned char>(bytes.front()));
  }
  std::sort(words_.begin(), words_.end(), [](const Word& a, const Word& b) {
    return a.bytes < b.bytes || (a.bytes == b.bytes && a.id < b.id);
  });
  for (std::size_t i = 1; i < words_.size(); ++i) {
    const std::string_view before = words_[i - 1].bytes, bytes = words_[i].bytes;
    const auto end = std::mismatch(before.begin(), before.end(), bytes.begin(), bytes.end()).first;
    words_[i].shared = static_cast<std::uint32_t>(end - before.begin());
  }
  const ByteSet needed = byte_range(0x20, 0x7f) | byte_range(0x80, 0xbf) | byte_range(0xc2, 0xf4);
  spells_all_text_ = (single & needed) == needed;
}

std::string_view TokenTrie::bytes(TokenId id) const {
  if (id.value() < 0 || id.value() >= tokenizer_.size() ||
      !is_word_[static_cast<std::size_t>(id.value())]) {
    return {};
  }
  return tokenizer_.token_bytes(id);
}

std::shared_ptr<const TokenTrie> LazyTokenTrie::get(const Tokenizer& tokenizer,
                                                    const PromptConfig& prompts) {
  std::call_once(made_, [&] { trie_ = std::make_shared<const TokenTrie>(tokenizer, prompts); });
  return trie_;
}

Result<TokenConstraint> TokenConstraint::create(std::shared_ptr<const TokenTrie> vocabulary,
                                                Grammar grammar, TokenId eos) {
  if (!vocabulary->spells_all_text()) {
    return error(ErrorCode::kUnsupported,
                 "this model's vocabulary lacks single bytes: it cannot be held to a grammar");
  }
  return TokenConstraint(std::move(vocabulary), std::move(grammar), eos);
}

TokenConstraint::TokenConstraint(std::shared_ptr<const TokenTrie> vocabulary, Grammar grammar,
                                 TokenId eos)
    : vocabulary_(std::move(vocabulary)),
      grammar_(std::make_unique<const Grammar>(std::move(grammar))),
      automaton_(std::make_unique<GrammarAutomaton>(*grammar_)),
      eos_(eos),
      state_(automaton_->start()) {
  choose();
}

bool TokenConstraint::advance(TokenId id) {
  // Ids behind the tokenizer's, which some weights have, write nothing.
  if (id.value() >= vocabulary_->vocabulary_size()) return true;
  const std::string_view bytes = vocabulary_->bytes(id);
  if (bytes.empty()) return false;
  std::int32_t state = state_;
  for (const char byte : bytes) {
    state = automaton_->step(state, static_cast<std::uint8_t>(byte));
    if (state == GrammarAutomaton::kDead) return false;
  }
  state_ = state;
  is_first_ = false;
  if (automaton_->num_states() > kMaxStates) {
    state_ = automaton_->forget_others(state_);
    choices_.clear();
  }
  choose();
  return true;
}

// Walks the trie and the automaton together. `path` holds the states along the word before, up to
// where it died: a word that shares the fatal byte dies as well.
std::vector<bool> TokenConstraint::find_allowed() {
  std::vector<bool> allowed(static_cast<std::size_t>(vocabulary_->vocabulary_size()), false);
  std::vector<std::int32_t> path(vocabulary_->longest() + 1, state_);
  std::size_t alive = 0;  // bytes of the word before that the automaton took
  for (const TokenTrie::Word& word : vocabulary_->words()) {
    if (word.shared > alive) continue;
    alive = word.shared;
    while (alive < word.bytes.size()) {
      const auto byte = static_cast<std::uint8_t>(word.bytes[alive]);
      const std::int32_t state = automaton_->step(path[alive], byte);
      if (state == GrammarAutomaton::kDead) break;
      path[++alive] = state;
    }
    if (alive == word.bytes.size()) allowed[static_cast<std::size_t>(word.id.value())] = true;
  }
  if (is_complete() && eos_.value() < vocabulary_->vocabulary_size()) {
    allowed[static_cast<std::size_t>(eos_.value())] = true;
  }
  return allowed;
}

void TokenConstraint::choose() {
  if (choices_.size() > kMaxChoices) choices_.clear();
  const auto [known, is_new] = choices_.try_emplace(state_);
  Choice& choice = known->second;
  choice_ = &choice;
  if (!is_new) return;
  const std::vector<bool> allowed = find_allowed();
  const std::ptrdiff_t num_allowed = std::count(allowed.begin(), allowed.end(), true);
  const bool list_allowed = is_first_ || 2 * num_allowed <= std::ssize(allowed);
  std::vector<TokenId>& list = list_allowed ? choice.allowed : choice.suppressed;
  for (std::int32_t id = 0; id < vocabulary_->vocabulary_size(); ++id) {
    if (allowed[static_cast<std::size_t>(id)] == list_allowed) list.emplace_back(id);
  }
}

}  // namespace fovea::skills
