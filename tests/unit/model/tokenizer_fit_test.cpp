#include "model/tokenizer_fit.h"

#include <gtest/gtest.h>

namespace fovea {
namespace {

// Two control tokens, then three words.
Tokenizer small_tokenizer() {
  auto tokenizer = Tokenizer::parse_json(R"({
    "added_tokens": [
      {"id": 0, "content": "<|end|>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
      {"id": 1, "content": "<|answer|>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "vocab": {"<|end|>": 0, "<|answer|>": 1, "a": 2, "b": 3, "ab": 4}, "merges": ["a b"]}})",
                                         "test");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  return std::move(tokenizer).value();
}

ModelConfig fitting_config() {
  ModelConfig config;
  config.family = "moondream2";
  config.text.vocab_size = 8;
  config.prompts.answer = TokenId{1};
  config.prompts.known_word = KnownWord{TokenId{4}, "ab"};
  return config;
}

TEST(TokenizerFit, AcceptsTheRightOne) {
  const auto status = check_tokenizer_fits(small_tokenizer(), fitting_config());
  EXPECT_TRUE(status.ok()) << status.error().message;
}

TEST(TokenizerFit, RefusesMoreIdsThanRows) {
  ModelConfig config = fitting_config();
  config.text.vocab_size = 4;
  const auto status = check_tokenizer_fits(small_tokenizer(), config);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("5 ids"), std::string::npos) << status.error().message;
}

TEST(TokenizerFit, RefusesAControlIdThatIsAWord) {
  ModelConfig config = fitting_config();
  config.prompts.coord = TokenId{4};
  const auto status = check_tokenizer_fits(small_tokenizer(), config);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("coordinate"), std::string::npos) << status.error().message;
  EXPECT_NE(status.error().message.find("\"ab\""), std::string::npos) << status.error().message;
}

TEST(TokenizerFit, RefusesAKnownWordUnderAnotherId) {
  ModelConfig config = fitting_config();
  config.prompts.known_word = KnownWord{TokenId{3}, "query"};
  const auto status = check_tokenizer_fits(small_tokenizer(), config);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("\"query\""), std::string::npos) << status.error().message;
}

}  // namespace
}  // namespace fovea
