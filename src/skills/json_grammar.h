#pragma once

#include <cstdint>
#include <optional>

#include "skills/grammar.h"

namespace fovea::skills {

/// How often something may be repeated; without `max`, any number of times from `min` on.
struct Repetition {
  std::int64_t min = 0;
  std::optional<std::int64_t> max;
};

/// The parts that JSON is made of, as rules of a grammar. Each is added when first asked for.
class JsonGrammar {
 public:
  using Symbol = Grammar::Symbol;
  using Sequence = Grammar::Sequence;

  explicit JsonGrammar(Grammar& grammar) : grammar_(grammar) {}

  /// A string with so many code points. Escapes stand for code points outside the surrogates.
  Symbol string(Repetition length);
  Symbol integer();
  Symbol number();
  Symbol boolean();
  Symbol null();
  /// An array with so many of `item`.
  Symbol array(Symbol item, Repetition count);
  /// An object with any keys and values, and any value at all, as deep as the automaton lets them.
  Symbol any_object();
  Symbol any_value();

 private:
  Symbol character();
  Symbol digits(int max);

  Grammar& grammar_;
  std::optional<Symbol> character_, integer_, number_, any_object_, any_value_;
};

/// The sequences joined.
Grammar::Sequence operator+(Grammar::Sequence a, const Grammar::Sequence& b);

}  // namespace fovea::skills
