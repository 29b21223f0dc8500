#pragma once

#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "io/tokenizer.h"
#include "io/tokenizer_spec.h"

namespace fovea::testing_support {

/// Ids 0..9 are control tokens, 10 + b is the byte b, and from 266 on come the words.
inline Tokenizer byte_tokenizer(const std::vector<std::string>& words) {
  TokenizerSpec spec;
  for (int id = 0; id < 10; ++id) {
    AddedToken control;
    control.id = id;
    control.content = "<" + std::to_string(id) + ">";
    control.special = true;
    spec.added.push_back(control);
  }
  for (int byte = 0; byte < 256; ++byte)
    spec.bpe.tokens.push_back({10 + byte, std::string(1, static_cast<char>(byte))});
  std::int32_t id = 266;
  for (const std::string& word : words) spec.bpe.tokens.push_back({id++, word});
  spec.pre_tokenizer = PreTokenizer::gpt2();
  auto tokenizer = Tokenizer::build(std::move(spec), "bytes");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  return std::move(tokenizer).value();
}

/// Words as vocabularies have them where JSON is concerned: across its punctuation, and halves of
/// characters.
inline std::vector<std::string> json_words() {
  return {"{\"",     "\":",  "\":\"",     "\",\"",    "\"}",      "\"]",      "],",       "},",
          "}}",      "[[",   "[\"",       ":[",       "true",     "false",    "null",     "12",
          "000",     "-1",   ".5",        "1.",       "e1",       " the",     " cat",     "\\n",
          "\\u",     "00e9", "\n\n",      "\xc3\xa9", "\xe2\x82", "\x82\xac", "\xf0\x9f", "name",
          "\"name",  "a\"b", "kind\":\"", "red\"",    "rede",     "\":{\"",   ",\"",      "\"\"",
          "\"\",\"", "{}",   "[]",        "]}"};
}

}  // namespace fovea::testing_support
