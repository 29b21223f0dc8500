// A tokenizer.json from outside and a text: the input is the file, a zero byte, and the text. No
// text gives a special id, decoding in steps equals decoding at once, and a vocabulary with every
// byte loses nothing.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "io/tokenizer.h"
#include "io/tokenizer_spec.h"
#include "io/utf8.h"

namespace {

void check_round_trip(const fovea::Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text);
  std::string joined;
  fovea::IncrementalDecoder decoder(tokenizer);
  for (const fovea::TokenId id : ids) {
    FOVEA_CHECK(!tokenizer.is_special(id), "id {}", id.value());
    FOVEA_CHECK(id.value() >= 0 && id.value() < tokenizer.size(), "id {}", id.value());
    const std::string piece = decoder.push(id);
    FOVEA_CHECK(fovea::is_valid_utf8(piece), "half a character");
    joined += piece;
  }
  joined += decoder.finish();
  FOVEA_CHECK(joined == tokenizer.decode(ids), "the stream differs from the whole");
}

// Every byte is a token, merges are none: whatever the input says about added tokens, text
// survives.
const fovea::Tokenizer& byte_tokenizer() {
  static const fovea::Tokenizer kTokenizer = [] {
    fovea::TokenizerSpec spec;
    for (int byte = 0; byte < 256; ++byte)
      spec.bpe.tokens.push_back({byte, std::string(1, static_cast<char>(byte))});
    spec.bpe.merges.push_back({'a', 'b', 256, 0});
    spec.bpe.tokens.push_back({256, "ab"});
    spec.pre_tokenizer = fovea::PreTokenizer::gpt2();
    return fovea::Tokenizer::build(std::move(spec), "bytes").value();
  }();
  return kTokenizer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\0'), input.size());
  const std::string_view file = input.substr(0, end);
  const std::string_view text = input.substr(std::min(end + 1, input.size()));
  check_round_trip(byte_tokenizer(), text);
  std::string repaired;
  fovea::append_lossy_utf8(text, fovea::Utf8End::kComplete, repaired);
  FOVEA_CHECK(byte_tokenizer().decode(byte_tokenizer().encode(text)) == repaired, "text was lost");
  if (const auto tokenizer = fovea::Tokenizer::parse_json(file, "input"); tokenizer.ok()) {
    check_round_trip(*tokenizer, text);
  }
  if (auto spec = fovea::parse_tiktoken(file, "input"); spec.ok()) {
    if (const auto tokenizer = fovea::Tokenizer::build(std::move(spec).value(), "input");
        tokenizer.ok()) {
      check_round_trip(*tokenizer, text);
    }
  }
  return 0;
}
