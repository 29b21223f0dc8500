#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/tokenizer.h"

namespace fovea::skills {

/// Text of an answer as its tokens come in: whole characters, cut before the first stop string.
/// What a stop string may still cut is held back from the stream.
class TextCollector {
 public:
  TextCollector(const Tokenizer& tokenizer, std::vector<std::string> stop);

  /// True when a stop string is complete; later tokens are ignored then.
  bool push(TokenId id);
  /// No more tokens: what was held back becomes final.
  void finish();

  const std::string& text() const { return text_; }
  /// What became final since the last call.
  std::string take();

 private:
  bool append(std::string_view piece);

  IncrementalDecoder decoder_;
  std::vector<std::string> stop_;
  std::size_t longest_stop_ = 0;  // bytes
  std::string text_;
  std::size_t taken_ = 0;
  bool stopped_ = false;
  bool finished_ = false;
};

}  // namespace fovea::skills
