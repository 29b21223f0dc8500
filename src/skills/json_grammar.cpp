#include "skills/json_grammar.h"

namespace fovea::skills {
namespace {

constexpr int kMaxDigits = 15;  // every number of so many is exact as a double

}  // namespace

Grammar::Sequence operator+(Grammar::Sequence a, const Grammar::Sequence& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// One code point: well-formed UTF-8 (Unicode, table 3-7) or an escape.
Grammar::Symbol JsonGrammar::character() {
  if (character_) return *character_;
  const auto range = [&](unsigned first, unsigned last) {
    return grammar_.bytes(byte_range(first, last));
  };
  ByteSet ascii = byte_range(0x20, 0x7f);
  ascii.reset('"').reset('\\');
  const Symbol tail = range(0x80, 0xbf);
  const ByteSet digits = byte_range('0', '9');
  const ByteSet letters = byte_range('a', 'f') | byte_range('A', 'F');
  const Symbol hex = grammar_.bytes(digits | letters);
  ByteSet first = digits | letters;
  first.reset('d').reset('D');
  ByteSet simple;
  for (const char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'}) {
    simple.set(static_cast<unsigned char>(c));
  }
  const Sequence backslash = grammar_.literal("\\");
  const Symbol code = grammar_.add_rule({
      {grammar_.bytes(first), hex, hex, hex},
      {grammar_.bytes(byte_range('d', 'd') | byte_range('D', 'D')), range('0', '7'), hex, hex},
  });
  character_ = grammar_.add_rule({
      {grammar_.bytes(ascii)},
      {range(0xc2, 0xdf), tail},
      {range(0xe0, 0xe0), range(0xa0, 0xbf), tail},
      {grammar_.bytes(byte_range(0xe1, 0xec) | byte_range(0xee, 0xef)), tail, tail},
      {range(0xed, 0xed), range(0x80, 0x9f), tail},
      {range(0xf0, 0xf0), range(0x90, 0xbf), tail, tail},
      {range(0xf1, 0xf3), tail, tail, tail},
      {range(0xf4, 0xf4), range(0x80, 0x8f), tail, tail},
      backslash + Sequence{grammar_.bytes(simple)},
      backslash + grammar_.literal("u") + Sequence{code},
  });
  return *character_;
}

// Built from its end: what may follow `n` characters, then n - 1 and so on.
Grammar::Symbol JsonGrammar::string(Repetition length) {
  const Sequence quote = grammar_.literal("\"");
  Symbol rest = grammar_.add_rule({quote});
  std::int64_t n = length.max.value_or(length.min);
  if (!length.max) grammar_.add_alternative(rest, {character(), rest});
  while (n-- > 0) {
    rest = grammar_.add_rule({{character(), rest}});
    if (n >= length.min) grammar_.add_alternative(rest, quote);
  }
  return grammar_.add_rule({quote + Sequence{rest}});
}

// Up to so many digits, or none.
Grammar::Symbol JsonGrammar::digits(int max) {
  const Symbol digit = grammar_.bytes(byte_range('0', '9'));
  Symbol rest = grammar_.add_rule({{}});
  while (max-- > 0) rest = grammar_.add_rule({{}, {digit, rest}});
  return rest;
}

Grammar::Symbol JsonGrammar::integer() {
  if (!integer_) {
    const Symbol positive =
        grammar_.add_rule({{grammar_.bytes(byte_range('1', '9')), digits(kMaxDigits - 1)}});
    integer_ = grammar_.add_rule(
        {grammar_.literal("0"), {positive}, grammar_.literal("-") + Sequence{positive}});
  }
  return *integer_;
}

Grammar::Symbol JsonGrammar::number() {
  if (!number_) {
    const Symbol nonzero = grammar_.bytes(byte_range('1', '9'));
    const Symbol digit = grammar_.bytes(byte_range('0', '9'));
    const Symbol whole =
        grammar_.add_rule({grammar_.literal("0"), {nonzero, digits(kMaxDigits - 1)}});
    const Symbol fraction =
        grammar_.add_rule({{}, grammar_.literal(".") + Sequence{digit, digits(kMaxDigits - 1)}});
    const Symbol sign = grammar_.add_rule({{}, grammar_.literal("-"), grammar_.literal("+")});
    ByteSet e;
    e.set('e').set('E');
    const Symbol exponent = grammar_.add_rule({{}, {grammar_.bytes(e), sign, nonzero, digits(1)}});
    const Symbol minus = grammar_.add_rule({{}, grammar_.literal("-")});
    number_ = grammar_.add_rule({{minus, whole, fraction, exponent}});
  }
  return *number_;
}

Grammar::Symbol JsonGrammar::boolean() {
  return grammar_.add_rule({grammar_.literal("true"), grammar_.literal("false")});
}

Grammar::Symbol JsonGrammar::null() { return grammar_.add_rule({grammar_.literal("null")}); }

Grammar::Symbol JsonGrammar::array(Symbol item, Repetition count) {
  const Sequence open = grammar_.literal("["), close = grammar_.literal("]");
  const Sequence comma = grammar_.literal(",");
  if (count.max == 0) return grammar_.add_rule({open + close});
  // As strings: what may follow `n` items.
  Symbol rest = grammar_.add_rule({close});
  std::int64_t n = count.max.value_or(std::max<std::int64_t>(count.min, 1));
  if (!count.max) grammar_.add_alternative(rest, comma + Sequence{item, rest});
  while (--n > 0) {
    rest = grammar_.add_rule({comma + Sequence{item, rest}});
    if (n >= count.min) grammar_.add_alternative(rest, close);
  }
  const Symbol items = grammar_.add_rule({open + Sequence{item, rest}});
  if (count.min == 0) grammar_.add_alternative(items, open + close);
  return items;
}

Grammar::Symbol JsonGrammar::any_object() {
  if (!any_object_) {
    any_object_ = grammar_.add_rule();  // named first: values may be objects again
    const Sequence open = grammar_.literal("{"), close = grammar_.literal("}");
    const Symbol member =
        grammar_.add_rule({Sequence{string({})} + grammar_.literal(":") + Sequence{any_value()}});
    const Symbol rest = grammar_.add_rule({close});
    grammar_.add_alternative(rest, grammar_.literal(",") + Sequence{member, rest});
    grammar_.add_alternative(*any_object_, open + close);
    grammar_.add_alternative(*any_object_, open + Sequence{member, rest});
  }
  return *any_object_;
}

Grammar::Symbol JsonGrammar::any_value() {
  if (!any_value_) {
    any_value_ = grammar_.add_rule();
    for (const Symbol kind :
         {string({}), number(), boolean(), null(), any_object(), array(*any_value_, {})}) {
      grammar_.add_alternative(*any_value_, {kind});
    }
  }
  return *any_value_;
}

}  // namespace fovea::skills
