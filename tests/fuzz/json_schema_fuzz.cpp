// A JSON schema from outside and a walk through its answers: the input is the schema, a zero byte,
// and what to choose. Wherever a walk stands, it can go on or has ended, and an answer that is
// whole is JSON.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "skills/json_schema.h"

namespace {

using fovea::skills::GrammarAutomaton;

void walk(const fovea::skills::Grammar& grammar, std::string_view choices) {
  GrammarAutomaton automaton(grammar);
  std::int32_t state = automaton.start();
  std::string text;
  for (std::size_t i = 0; i < choices.size() && !automaton.is_final(state); ++i) {
    int allowed[256];
    int num_allowed = 0;
    for (int byte = 0; byte < 256; ++byte) {
      if (automaton.step(state, static_cast<std::uint8_t>(byte)) != GrammarAutomaton::kDead)
        allowed[num_allowed++] = byte;
    }
    FOVEA_CHECK(num_allowed > 0, "stuck after {}", text);
    const int chosen = allowed[static_cast<unsigned char>(choices[i]) % num_allowed];
    state = automaton.step(state, static_cast<std::uint8_t>(chosen));
    text += static_cast<char>(chosen);
    if (automaton.accepts(state)) {
      FOVEA_CHECK(fovea::json::parse(text, "answer").ok(), "no JSON: {}", text);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\0'), input.size());
  const auto grammar = fovea::skills::compile_json_schema(input.substr(0, end));
  if (grammar.ok()) walk(*grammar, input.substr(std::min(end + 1, input.size())).substr(0, 512));
  return 0;
}
