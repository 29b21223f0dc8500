#include "skills/text_collector.h"

#include <algorithm>

namespace fovea::skills {

TextCollector::TextCollector(const Tokenizer& tokenizer, std::vector<std::string> stop)
    : decoder_(tokenizer), stop_(std::move(stop)) {
  for (const std::string& text : stop_) longest_stop_ = std::max(longest_stop_, text.size());
}

bool TextCollector::push(TokenId id) { return append(decoder_.push(id)); }

void TextCollector::finish() {
  if (finished_) return;
  append(decoder_.finish());
  finished_ = true;
}

bool TextCollector::append(std::string_view piece) {
  if (stopped_ || piece.empty()) return stopped_;
  // A stop string may begin in text that is already here, but not further back than its own length.
  const std::size_t search_from = text_.size() > longest_stop_ ? text_.size() - longest_stop_ : 0;
  text_ += piece;
  std::size_t cut = std::string::npos;
  for (const std::string& stop : stop_) cut = std::min(cut, text_.find(stop, search_from));
  if (cut == std::string::npos) return false;
  text_.resize(cut);
  stopped_ = true;
  return true;
}

std::string TextCollector::take() {
  std::size_t end = text_.size();
  if (!stopped_ && !finished_) {
    // Hold back the longest tail that begins a stop string.
    for (std::size_t begin = end > longest_stop_ ? end - longest_stop_ : 0; begin < text_.size();
         ++begin) {
      const std::string_view tail = std::string_view(text_).substr(begin);
      if (std::any_of(stop_.begin(), stop_.end(),
                      [&](const std::string& stop) { return stop.starts_with(tail); })) {
        end = begin;
        break;
      }
    }
  }
  if (end <= taken_) return {};
  std::string piece = text_.substr(taken_, end - taken_);
  taken_ = end;
  return piece;
}

}  // namespace fovea::skills
