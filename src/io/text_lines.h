#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace fovea {

/// The lines of a text one by one, without their ends (LF or CR LF).
class TextLines {
 public:
  explicit TextLines(std::string_view text) : rest_(text) {}

  /// Moves to the next line. False when there is none.
  bool next() {
    if (rest_.empty()) return false;
    line_ = rest_.substr(0, rest_.find('\n'));
    rest_.remove_prefix(std::min(rest_.size(), line_.size() + 1));
    ++number_;
    if (line_.ends_with('\r')) line_.remove_suffix(1);
    return true;
  }

  std::string_view line() const { return line_; }
  /// Of the current line, counted from 1.
  std::size_t number() const { return number_; }

 private:
  std::string_view rest_;
  std::string_view line_;
  std::size_t number_ = 0;
};

}  // namespace fovea
