#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "fovea/result.h"

#include "io/tokenizer.h"
#include "model/prompt_config.h"
#include "skills/grammar.h"

namespace fovea::skills {

/// The words of a vocabulary by their bytes: a trie laid out flat. Words are sorted, and each knows
/// how many bytes it shares with the one before, so that one pass over them walks the trie.
/// Immutable.
class TokenTrie {
 public:
  struct Word {
    TokenId id;
    std::uint32_t shared = 0;  ///< leading bytes that the word before has as well
    std::string_view bytes;    ///< never empty
  };

  /// Every token with bytes of its own that is none of the control tokens.
  TokenTrie(const Tokenizer& tokenizer, const PromptConfig& prompts);

  std::span<const Word> words() const { return words_; }
  /// Nothing for control tokens and ids that the tokenizer does not know.
  std::string_view bytes(TokenId id) const;
  std::int32_t vocabulary_size() const { return tokenizer_.size(); }
  std::size_t longest() const { return longest_; }
  /// Each byte that UTF-8 text may have is a word: whatever the bytes, there is a word that goes
  /// on.
  bool spells_all_text() const { return spells_all_text_; }

 private:
  Tokenizer tokenizer_;  // owns the bytes
  std::vector<Word> words_;
  std::vector<bool> is_word_;  // by id
  std::size_t longest_ = 0;
  bool spells_all_text_ = false;
};

/// Makes a model's trie when it is first asked for. Any thread.
class LazyTokenTrie {
 public:
  std::shared_ptr<const TokenTrie> get(const Tokenizer& tokenizer, const PromptConfig& prompts);

 private:
  std::once_flag made_;
  std::shared_ptr<const TokenTrie> trie_;
};

/// Holds an answer to a grammar, token by token. The ids that may come next are worked out once for
/// each state of the automaton and kept as the shorter of two lists: those that may, or those that
/// may not. One thread at a time.
class TokenConstraint {
 public:
  /// Error: kUnsupported for a vocabulary in which some texts cannot be written.
  static Result<TokenConstraint> create(std::shared_ptr<const TokenTrie> vocabulary,
                                        Grammar grammar, TokenId eos);

  /// What may come next. At the beginning always the allowed ones.
  struct Choice {
    std::vector<TokenId> allowed;     ///< empty: all but those suppressed
    std::vector<TokenId> suppressed;  ///< empty: those allowed and no others
  };
  /// Valid until advance(). The end of sequence is among them once is_complete().
  const Choice& next() const { return *choice_; }

  /// Takes a token, no end of sequence. False when it may not come here; then nothing changes.
  bool advance(TokenId id);

  /// The tokens so far are a whole text of the grammar.
  bool is_complete() const { return automaton_->accepts(state_); }
  /// And nothing may follow.
  bool is_final() const { return automaton_->is_final(state_); }

 private:
  TokenConstraint(std::shared_ptr<const TokenTrie> vocabulary, Grammar grammar, TokenId eos);

  std::vector<bool> find_allowed();
  void choose();

  std::shared_ptr<const TokenTrie> vocabulary_;
  std::unique_ptr<const Grammar> grammar_;  // at a fixed address: the automaton refers to it
  std::unique_ptr<GrammarAutomaton> automaton_;
  TokenId eos_;
  std::int32_t state_ = 0;
  bool is_first_ = true;
  std::map<std::int32_t, Choice> choices_;  // by state
  const Choice* choice_ = nullptr;
};

}  // namespace fovea::skills
