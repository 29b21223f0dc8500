#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"

namespace fovea {

/// A token that is found in text before it is split into pieces, or a special one that is never
/// found in text.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;      ///< not empty, well-formed UTF-8
  bool special = false;     ///< only the program places it: its spelling inside a text stays text
  bool strip_left = false;  ///< takes the white space before it along
  bool strip_right = false;
  bool normalized = false;  ///< is searched after all those that are not
};

/// Finds added tokens in text the way the PyPI package `tokenizers` does with
/// `encode_special_tokens`: leftmost, the longest of those that begin at one place, never
/// overlapping. A special token that is met is passed over as text, but covers its bytes.
class AddedTokenMatcher {
 public:
  explicit AddedTokenMatcher(const std::vector<AddedToken>& tokens);

  /// A stretch of the text: one added token, or text to be split and merged.
  struct Segment {
    std::string_view text;
    std::optional<TokenId> token;
  };

  /// Appends the segments of `text`, in order, none empty. They view `text`. They cover it, and
  /// overlap only where a token begins inside the white space that the token before took along.
  void split(std::string_view text, std::vector<Segment>& segments) const;

  /// True when split() would never find anything.
  bool empty() const { return empty_; }

 private:
  // A trie of spellings. Children are few: a list is enough.
  struct Node {
    std::vector<std::pair<char, std::uint32_t>> children;
    std::int32_t token_idx = -1;
  };
  struct Trie {
    std::vector<Node> nodes{1};
    void add(const std::string& content, std::int32_t token_idx);
    // Index of the longest token at the front of `text`, or -1.
    std::int32_t longest_match(std::string_view text) const;
  };

  void split_by(const Trie& trie, std::string_view text, std::vector<Segment>& segments) const;

  std::vector<AddedToken> tokens_;
  Trie first_;   // tokens that are searched in the text as it came
  Trie second_;  // tokens that are searched in what is left
  bool empty_ = true;
};

}  // namespace fovea
