#include "io/json_keys.h"

#include <unordered_set>
#include <vector>

#include "base/json.h"

namespace fovea::json {
namespace {

// The raw string literal (without quotes) that starts at text[begin] == '"'.
std::string_view string_literal(std::string_view text, std::size_t begin) {
  std::size_t end = begin + 1;
  while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
  return text.substr(begin + 1, std::min(end, text.size()) - begin - 1);
}

std::string decode_key(std::string_view literal) {
  if (literal.find('\\') == std::string_view::npos) return std::string(literal);
  const auto decoded = parse('"' + std::string(literal) + '"', "key");
  if (!decoded.ok() || !decoded->is_string()) return std::string(literal);
  return std::string(decoded->get_string());
}

}  // namespace

std::optional<std::string> find_doubled_key(std::string_view text) {
  std::vector<std::unordered_set<std::string>>
      open;  // one per object or array around the current byte
  std::size_t at = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '{' || c == '[') {
      open.emplace_back();
    } else if ((c == '}' || c == ']') && !open.empty()) {
      open.pop_back();
    } else if (c == '"') {
      const std::string_view literal = string_literal(text, at);
      at += literal.size() + 2;
      const std::size_t next = text.find_first_not_of(" \t\r\n", at);
      if (next == std::string_view::npos || text[next] != ':' || open.empty()) continue;
      std::string key = decode_key(literal);
      if (!open.back().insert(key).second) return key;
      continue;
    }
    ++at;
  }
  return std::nullopt;
}

}  // namespace fovea::json
