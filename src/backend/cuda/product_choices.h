#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace fovea::cuda {

/// What the choice of a product's algorithm depends on.
struct ProductShape {
  std::int64_t rows = 0;  ///< of x: the most that bucket_of() puts together
  std::int64_t outputs = 0, inputs = 0;
  std::uint32_t kind = 0;       ///< types and what comes behind the product
  std::uint32_t alignment = 0;  ///< of its matrices, bytes
  auto operator<=>(const ProductShape&) const = default;
};

/// Rows that share a choice, named by the most of them: steps differ a little from one to the next.
std::int64_t bucket_of(std::int64_t rows);

/// An algorithm in the words in which cuBLASLt lets itself be told of it again.
using AlgorithmWords = std::array<std::uint64_t, 8>;

/// Which algorithm was found to be the fastest for a product, here or in an earlier process.
class ProductChoices {
 public:
  static constexpr std::size_t kMostBytes = std::size_t{1} << 20;  ///< read of a file

  /// Kept by this process alone.
  ProductChoices() = default;
  /// Those in a file, to which new ones are added. Lines that cannot be read are passed over. A
  /// file that cannot be read or written is no error: what it would have held is found anew.
  explicit ProductChoices(std::filesystem::path file);

  /// Null when none has been made.
  const AlgorithmWords* find(const ProductShape& shape) const;
  void add(const ProductShape& shape, const AlgorithmWords& words);

  using Choice = std::pair<ProductShape, AlgorithmWords>;
  /// A line of a file: thirteen whole numbers, those of the shape in decimal and the words in
  /// hexadecimal, a space between each. Nothing when it is anything else.
  static std::optional<Choice> parse(std::string_view line);
  /// The line, with its end.
  static std::string to_line(const Choice& choice);

 private:
  std::map<ProductShape, AlgorithmWords> choices_;
  std::filesystem::path file_;
};

}  // namespace fovea::cuda
