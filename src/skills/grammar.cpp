#include "skills/grammar.h"

#include <algorithm>
#include <deque>
#include <set>

#include "base/check.h"

namespace fovea::skills {

ByteSet byte_range(unsigned first, unsigned last) {
  ByteSet set;
  for (unsigned byte = first; byte <= last; ++byte) set.set(byte);
  return set;
}

bool Grammar::BytesLess::operator()(const ByteSet& a, const ByteSet& b) const {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i]) return b[i];
  }
  return false;
}

Grammar::Symbol Grammar::add_rule() {
  rules_.emplace_back();
  return {Symbol::Kind::kRule, static_cast<std::int32_t>(rules_.size()) - 1};
}

void Grammar::add_alternative(Symbol rule, const Sequence& sequence) {
  rules_[static_cast<std::size_t>(rule.index)].push_back(
      static_cast<std::int32_t>(symbols_.size()));
  symbols_.insert(symbols_.end(), sequence.begin(), sequence.end());
  symbols_.emplace_back();
}

Grammar::Symbol Grammar::add_rule(std::initializer_list<Sequence> alternatives) {
  const Symbol rule = add_rule();
  for (const Sequence& sequence : alternatives) add_alternative(rule, sequence);
  return rule;
}

Grammar::Symbol Grammar::bytes(const ByteSet& set) {
  const auto id = static_cast<std::int32_t>(byte_sets_.size());
  const auto [known, is_new] = byte_set_ids_.try_emplace(set, id);
  if (is_new) byte_sets_.push_back(set);
  return {Symbol::Kind::kBytes, known->second};
}

Grammar::Sequence Grammar::literal(std::string_view text) {
  Sequence sequence;
  for (const char c : text) {
    ByteSet one;
    one.set(static_cast<unsigned char>(c));
    sequence.push_back(bytes(one));
  }
  return sequence;
}

void Grammar::finish(Symbol root) {
  root_ = root;
  heights_.assign(rules_.size(), kEndless);
  std::vector<std::vector<std::int32_t>> users(rules_.size());  // of each rule
  std::deque<std::int32_t> open;
  for (std::int32_t rule = 0; rule < static_cast<std::int32_t>(rules_.size()); ++rule) {
    open.push_back(rule);
    for (std::int32_t position : rules_[static_cast<std::size_t>(rule)]) {
      for (; symbol(position).kind != Symbol::Kind::kEnd; ++position) {
        if (symbol(position).kind != Symbol::Kind::kRule) continue;
        users[static_cast<std::size_t>(symbol(position).index)].push_back(rule);
      }
    }
  }
  for (; !open.empty(); open.pop_front()) {
    const auto rule = static_cast<std::size_t>(open.front());
    int lowest = kEndless;
    for (const std::int32_t begin : rules_[rule]) lowest = std::min(lowest, height(begin));
    if (lowest >= heights_[rule]) continue;
    heights_[rule] = lowest;
    open.insert(open.end(), users[rule].begin(), users[rule].end());
  }
}

int Grammar::height(std::int32_t position) const {
  int highest = 0;
  for (; symbol(position).kind != Symbol::Kind::kEnd; ++position) {
    if (symbol(position).kind != Symbol::Kind::kRule) continue;
    const int own = heights_[static_cast<std::size_t>(symbol(position).index)];
    // The last symbol takes the place of the sequence: nothing is left to come back to.
    const bool is_last = symbol(position + 1).kind == Symbol::Kind::kEnd;
    highest = std::max(highest, own + (is_last ? 0 : 1));
  }
  return std::min(highest, kEndless);
}

// Collects the byte sets that may come next, going into rules and out of finished ones.
class GrammarAutomaton::Closure {
 public:
  explicit Closure(GrammarAutomaton& automaton) : automaton_(automaton) {}

  void add(std::int32_t position, std::int32_t parent) {
    // Optional parts meet again behind them, and references may come back to themselves.
    if (!seen_.emplace(position, parent).second) return;
    const Grammar& grammar = automaton_.grammar_;
    const Grammar::Symbol symbol = grammar.symbol(position);
    switch (symbol.kind) {
      case Grammar::Symbol::Kind::kEnd:
        if (parent == kBottom) {
          state_.accepts = true;
        } else {
          const Frame frame = automaton_.frames_[index(parent)];
          add(frame.position, frame.parent);
        }
        return;
      case Grammar::Symbol::Kind::kBytes:
        state_.frames.push_back(automaton_.frame_of(position, parent));
        return;
      case Grammar::Symbol::Kind::kRule:
        break;
    }
    const bool is_last = grammar.symbol(position + 1).kind == Grammar::Symbol::Kind::kEnd;
    const std::int32_t rest = is_last ? parent : automaton_.frame_of(position + 1, parent);
    for (const std::int32_t begin : grammar.alternatives(symbol)) {
      if (automaton_.depth_of(rest) + grammar.height(begin) <= kMaxHeight) add(begin, rest);
    }
  }

  State take() {
    std::sort(state_.frames.begin(), state_.frames.end());
    state_.next.fill(kUnknown);
    return std::move(state_);
  }

 private:
  GrammarAutomaton& automaton_;
  std::set<std::pair<std::int32_t, std::int32_t>> seen_;
  State state_;
};

GrammarAutomaton::GrammarAutomaton(const Grammar& grammar) : grammar_(grammar) {
  Closure closure(*this);
  for (const std::int32_t begin : grammar.alternatives(grammar.root())) {
    if (grammar.height(begin) <= kMaxHeight) closure.add(begin, kBottom);
  }
  start_ = state_of(closure.take());
  FOVEA_CHECK(accepts(start_) || !is_final(start_), "the grammar's root does not fit");
}

std::int32_t GrammarAutomaton::step(std::int32_t state, std::uint8_t byte) {
  if (const std::int32_t known = states_[index(state)].next[byte]; known != kUnknown) return known;
  Closure closure(*this);
  for (const std::int32_t id : states_[index(state)].frames) {
    const Frame frame = frames_[index(id)];
    if (grammar_.byte_set(grammar_.symbol(frame.position)).test(byte)) {
      closure.add(frame.position + 1, frame.parent);
    }
  }
  State after = closure.take();
  const bool is_dead = after.frames.empty() && !after.accepts;
  const std::int32_t next = is_dead ? kDead : state_of(std::move(after));
  states_[index(state)].next[byte] = next;
  return next;
}

std::int32_t GrammarAutomaton::forget_others(std::int32_t state) {
  State kept = std::move(states_[index(state)]);
  kept.next.fill(kUnknown);
  states_.clear();
  state_ids_.clear();
  return state_of(std::move(kept));
}

std::int32_t GrammarAutomaton::frame_of(std::int32_t position, std::int32_t parent) {
  const std::uint64_t key = std::uint64_t{static_cast<std::uint32_t>(position)} << 32 |
                            static_cast<std::uint32_t>(parent);
  const auto id = static_cast<std::int32_t>(frames_.size());
  const auto [known, is_new] = frame_ids_.try_emplace(key, id);
  if (is_new) frames_.push_back({position, parent, depth_of(parent) + 1});
  return known->second;
}

std::int32_t GrammarAutomaton::state_of(State state) {
  const auto id = static_cast<std::int32_t>(states_.size());
  const auto [known, is_new] = state_ids_.try_emplace({state.accepts, state.frames}, id);
  if (is_new) states_.push_back(std::move(state));
  return known->second;
}

}  // namespace fovea::skills
