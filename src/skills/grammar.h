#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace fovea::skills {

using ByteSet = std::bitset<256>;

/// The bytes from `first` to `last`, both included.
ByteSet byte_range(unsigned first, unsigned last);

/// A context-free grammar over bytes: rules with alternatives, each a sequence of byte sets and
/// rules. A rule may stand for nothing.
class Grammar {
 public:
  /// Either a byte set or a rule, by its number.
  struct Symbol {
    enum class Kind : std::uint8_t { kEnd, kBytes, kRule };
    Kind kind = Kind::kEnd;
    std::int32_t index = 0;
  };
  using Sequence = std::vector<Symbol>;

  /// A rule without alternatives yet.
  Symbol add_rule();
  void add_alternative(Symbol rule, const Sequence& sequence);
  /// A rule with these alternatives.
  Symbol add_rule(std::initializer_list<Sequence> alternatives);
  Symbol bytes(const ByteSet& set);
  /// One byte set for each byte of `text`.
  Sequence literal(std::string_view text);

  /// Names the rule that everything begins with, and finds out how deep each rule must nest at
  /// least. Nothing is added afterwards.
  void finish(Symbol root);

  Symbol root() const { return root_; }
  const Symbol& symbol(std::int32_t position) const {
    return symbols_[static_cast<std::size_t>(position)];
  }
  const ByteSet& byte_set(Symbol symbol) const {
    return byte_sets_[static_cast<std::size_t>(symbol.index)];
  }
  /// Positions where the alternatives of a rule begin; each runs up to a kEnd.
  std::span<const std::int32_t> alternatives(Symbol rule) const {
    return rules_[static_cast<std::size_t>(rule.index)];
  }
  /// Rules that are open at once, at least, until a sequence from `position` on is complete;
  /// kEndless when it can never be.
  int height(std::int32_t position) const;
  static constexpr int kEndless = 1 << 20;

  std::size_t num_symbols() const { return symbols_.size(); }

 private:
  struct BytesLess {
    bool operator()(const ByteSet& a, const ByteSet& b) const;
  };

  std::vector<Symbol> symbols_;  // all sequences one after the other, each with its kEnd
  std::vector<std::vector<std::int32_t>> rules_;
  std::vector<ByteSet> byte_sets_;
  std::map<ByteSet, std::int32_t, BytesLess> byte_set_ids_;
  std::vector<int> heights_;  // by rule
  Symbol root_;
};

/// Runs a finished grammar over bytes. States are numbers; each stands for every way in which the
/// bytes so far can be read, and is worked out once. Nesting is bounded: what could only be
/// finished deeper than kMaxHeight is not begun, so that from each state an end can be reached.
/// One thread.
class GrammarAutomaton {
 public:
  static constexpr int kMaxHeight = 60;
  static constexpr std::int32_t kDead = -1;

  /// The grammar must outlive the automaton, and its root fit into kMaxHeight.
  explicit GrammarAutomaton(const Grammar& grammar);

  std::int32_t start() const { return start_; }
  /// The state after one more byte; kDead when no reading allows it.
  std::int32_t step(std::int32_t state, std::uint8_t byte);
  /// The bytes so far are a whole text of the grammar.
  bool accepts(std::int32_t state) const { return states_[index(state)].accepts; }
  /// And nothing may follow.
  bool is_final(std::int32_t state) const { return states_[index(state)].frames.empty(); }
  std::size_t num_states() const { return states_.size(); }
  /// Forgets every state but this one, which gets a new number: bounds memory.
  std::int32_t forget_others(std::int32_t state);

 private:
  static constexpr std::int32_t kUnknown = -2;
  static constexpr std::int32_t kBottom = -1;

  // What is left to read: from `position` of the grammar's symbols on, then the parent's rest.
  struct Frame {
    std::int32_t position = 0;
    std::int32_t parent = kBottom;
    int depth = 0;  // frames from here to the bottom
  };
  struct State {
    std::vector<std::int32_t> frames;  // ascending; each is at a byte set
    bool accepts = false;
    std::array<std::int32_t, 256> next;
  };
  class Closure;

  static std::size_t index(std::int32_t state) { return static_cast<std::size_t>(state); }
  std::int32_t frame_of(std::int32_t position, std::int32_t parent);
  int depth_of(std::int32_t frame) const {
    return frame == kBottom ? 0 : frames_[index(frame)].depth;
  }
  std::int32_t state_of(State state);

  const Grammar& grammar_;
  std::vector<Frame> frames_;
  std::unordered_map<std::uint64_t, std::int32_t> frame_ids_;  // by position and parent
  std::vector<State> states_;
  std::map<std::pair<bool, std::vector<std::int32_t>>, std::int32_t> state_ids_;
  std::int32_t start_ = 0;
};

}  // namespace fovea::skills
