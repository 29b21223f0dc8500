#include "backend/cuda/product_choices.h"

#include <charconv>
#include <fstream>
#include <locale>
#include <sstream>

#include "base/math.h"

namespace fovea::cuda {
namespace {

// Takes the next number off a line, and the space behind it; the last number ends the line.
template <class Number>
bool take(std::string_view& line, Number& number, int base, bool is_last = false) {
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), number, base);
  if (error != std::errc{}) return false;
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  if (is_last) return line.empty();
  if (!line.starts_with(' ')) return false;
  line.remove_prefix(1);
  return true;
}

}  // namespace

// Narrower where a step's rows differ from the next's; the rows of crops come in multiples of 729.
std::int64_t bucket_of(std::int64_t rows) {
  constexpr std::int64_t kFew = 256, kSome = 1024, kMany = 2560;
  if (rows <= kFew) return round_up(rows, std::int64_t{32});
  if (rows <= kSome) return round_up(rows, std::int64_t{64});
  return round_up(rows, std::int64_t{rows <= kMany ? 128 : 256});
}

ProductChoices::ProductChoices(std::filesystem::path file) : file_(std::move(file)) {
  std::ifstream in(file_);
  std::string line;
  for (std::size_t bytes = 0; bytes < kMostBytes && std::getline(in, line);) {
    bytes += line.size() + 1;
    if (const std::optional<Choice> choice = parse(line)) {
      choices_.insert_or_assign(choice->first, choice->second);
    }
  }
}

const AlgorithmWords* ProductChoices::find(const ProductShape& shape) const {
  const auto found = choices_.find(shape);
  return found == choices_.end() ? nullptr : &found->second;
}

// One line in one write: several processes may share the file.
void ProductChoices::add(const ProductShape& shape, const AlgorithmWords& words) {
  choices_.insert_or_assign(shape, words);
  if (file_.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(file_.parent_path(), ignored);
  const auto size = std::filesystem::file_size(file_, ignored);
  if (!ignored && size >= kMostBytes) return;
  std::ofstream(file_, std::ios::app) << to_line({shape, words}) << std::flush;
}

std::optional<ProductChoices::Choice> ProductChoices::parse(std::string_view line) {
  ProductShape shape;
  AlgorithmWords words{};
  if (!take(line, shape.rows, 10) || !take(line, shape.outputs, 10) ||
      !take(line, shape.inputs, 10) || !take(line, shape.kind, 10) ||
      !take(line, shape.alignment, 10)) {
    return std::nullopt;
  }
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (!take(line, words[i], 16, i + 1 == words.size())) return std::nullopt;
  }
  if (shape.rows < 1 || shape.outputs < 1 || shape.inputs < 1) return std::nullopt;
  return Choice{shape, words};
}

std::string ProductChoices::to_line(const Choice& choice) {
  const auto& [shape, words] = choice;
  std::ostringstream line;
  line.imbue(std::locale::classic());
  line << shape.rows << ' ' << shape.outputs << ' ' << shape.inputs << ' ' << shape.kind << ' '
       << shape.alignment << std::hex;
  for (const std::uint64_t word : words) line << ' ' << word;
  line << '\n';
  return line.str();
}

}  // namespace fovea::cuda
