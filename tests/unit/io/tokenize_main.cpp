// tokenize TOKENIZER < strings > answers: what tools/check_tokenizer.py compares with the PyPI
// package `tokenizers`. Every string is a little-endian uint32 of its bytes and the bytes; its
// answer is a uint32 count of ids, the ids, a uint32 count of bytes and the bytes of the ids
// decoded.

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "io/tokenizer.h"

namespace {

bool read_u32(std::uint32_t& value) { return std::fread(&value, sizeof(value), 1, stdin) == 1; }

void write_u32(std::size_t value) {
  const auto small = static_cast<std::uint32_t>(value);
  std::fwrite(&small, sizeof(small), 1, stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tokenize TOKENIZER < strings > answers\n");
    return 2;
  }
  const auto tokenizer = fovea::Tokenizer::load(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.error().message.c_str());
    return 1;
  }
  std::string text;
  for (std::uint32_t size = 0; read_u32(size);) {
    text.resize(size);
    if (size > 0 && std::fread(text.data(), 1, size, stdin) != size) return 1;
    const std::vector<fovea::TokenId> ids = tokenizer->encode(text);
    write_u32(ids.size());
    for (const fovea::TokenId id : ids) write_u32(static_cast<std::size_t>(id.value()));
    const std::string decoded = tokenizer->decode(ids);
    write_u32(decoded.size());
    std::fwrite(decoded.data(), 1, decoded.size(), stdout);
  }
  return 0;
}
