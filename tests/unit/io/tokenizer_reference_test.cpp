// What the PyPI package `tokenizers` gave, as tools/check_tokenizer.py wrote it down.

#include <cstring>
#include <gtest/gtest.h>

#include "base/json.h"
#include "base/mapped_file.h"
#include "io/tokenizer.h"

namespace fovea {
namespace {

std::string data_path(const std::string& name) {
  return std::string(FOVEA_TEST_DATA) + "/tokenizer/" + name;
}

// Reads numbers and strings off the front of a file of cases.
class CaseReader {
 public:
  explicit CaseReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  bool at_end() const { return bytes_.empty(); }
  template <class T>
  T number() {
    T value{};
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view text(std::size_t size) {
    const auto bytes = take(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> take(std::size_t size) {
    const auto front = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return front;
  }
  std::span<const std::byte> bytes_;
};

class TokenizerReference : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerReference, GivesTheSameIds) {
  const std::string name = GetParam();
  const auto tokenizer = Tokenizer::load(data_path(name + ".json"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  const auto file = MappedFile::open(data_path(name + ".cases"));
  ASSERT_TRUE(file.ok()) << file.error().message;
  CaseReader cases(file->bytes());
  int count = 0;
  for (; !cases.at_end(); ++count) {
    const std::string_view text = cases.text(cases.number<std::uint32_t>());
    std::vector<TokenId> wanted(cases.number<std::uint16_t>());
    for (TokenId& id : wanted) id = TokenId(cases.number<std::uint16_t>());
    ASSERT_EQ(tokenizer->encode(text), wanted) << "string " << count << ": " << text;
  }
  EXPECT_EQ(count, 2500);
}

INSTANTIATE_TEST_SUITE_P(Files, TokenizerReference, testing::Values("golden", "cl100k"));

TEST(TokenizerGolden, AgreesWithTheProbes) {
  const auto tokenizer = Tokenizer::load(data_path("golden.json"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  const auto probes = json::parse_file(data_path("golden_probes.json"), 1 << 20);
  ASSERT_TRUE(probes.ok()) << probes.error().message;
  for (const json::value& probe : probes->as_array()) {
    const std::string text(probe.at("text").as_string());
    std::vector<TokenId> ids;
    for (const json::value& id : probe.at("ids").as_array())
      ids.emplace_back(static_cast<int>(id.as_int64()));
    EXPECT_EQ(tokenizer->decode(ids), std::string(probe.at("decoded").as_string()));
    // The probes let a special spelling be that token; a user's text must not.
    if (text != "<|endoftext|>") {
      EXPECT_EQ(tokenizer->encode(text), ids) << text;
    } else {
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
    }
  }
}

}  // namespace
}  // namespace fovea
