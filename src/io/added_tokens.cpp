#include "io/added_tokens.h"

#include <algorithm>

#include "io/unicode_class.h"
#include "io/utf8.h"

namespace fovea {
namespace {

// Bytes of white space at the front.
std::size_t space_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Utf8Char c = decode_valid_utf8_char(text.substr(at));
    if (char_class(c.code_point) != CharClass::kSpace) break;
    at += c.length;
  }
  return at;
}

// Bytes of white space at the back.
std::size_t space_suffix(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t begin = end - 1;
    while ((static_cast<std::uint8_t>(text[begin]) & 0xc0) == 0x80) --begin;
    if (char_class(decode_valid_utf8_char(text.substr(begin)).code_point) != CharClass::kSpace)
      break;
    end = begin;
  }
  return text.size() - end;
}

}  // namespace

void AddedTokenMatcher::Trie::add(const std::string& content, std::int32_t token_idx) {
  std::uint32_t node = 0;
  for (const char c : content) {
    auto& children = nodes[node].children;
    const auto child = std::find_if(children.begin(), children.end(),
                                    [c](const auto& edge) { return edge.first == c; });
    if (child != children.end()) {
      node = child->second;
      continue;
    }
    const auto next = static_cast<std::uint32_t>(nodes.size());
    children.emplace_back(c, next);
    nodes.emplace_back();
    node = next;
  }
  nodes[node].token_idx = token_idx;
}

std::int32_t AddedTokenMatcher::Trie::longest_match(std::string_view text) const {
  std::int32_t longest = -1;
  std::uint32_t node = 0;
  for (const char c : text) {
    const auto& children = nodes[node].children;
    const auto child = std::find_if(children.begin(), children.end(),
                                    [c](const auto& edge) { return edge.first == c; });
    if (child == children.end()) break;
    node = child->second;
    if (nodes[node].token_idx >= 0) longest = nodes[node].token_idx;
  }
  return longest;
}

AddedTokenMatcher::AddedTokenMatcher(const std::vector<AddedToken>& tokens) : tokens_(tokens) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    (tokens_[i].normalized ? second_ : first_)
        .add(tokens_[i].content, static_cast<std::int32_t>(i));
    if (!tokens_[i].special) empty_ = false;
  }
}

void AddedTokenMatcher::split(std::string_view text, std::vector<Segment>& segments) const {
  std::vector<Segment> found;
  split_by(first_, text, found);
  for (const Segment& segment : found) {
    if (segment.token) {
      segments.push_back(segment);
    } else {
      split_by(second_, segment.text, segments);
    }
  }
}

void AddedTokenMatcher::split_by(const Trie& trie, std::string_view text,
                                 std::vector<Segment>& segments) const {
  std::size_t done = 0;  // what is in segments
  for (std::size_t at = 0; at < text.size();) {
    const std::int32_t match = trie.longest_match(text.substr(at));
    if (match < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(match)];
    std::size_t begin = at;
    std::size_t end = at + token.content.size();
    at = end;
    if (token.special) continue;
    if (token.strip_left) begin = std::max(done, begin - space_suffix(text.substr(0, begin)));
    if (token.strip_right) end += space_prefix(text.substr(end));
    if (begin > done) segments.push_back({text.substr(done, begin - done), std::nullopt});
    segments.push_back({text.substr(begin, end - begin), TokenId(token.id)});
    done = end;
  }
  if (done < text.size()) segments.push_back({text.substr(done), std::nullopt});
}

}  // namespace fovea
