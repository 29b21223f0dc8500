#include "request_id.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <openssl/rand.h>

namespace fovea::server {

// https://github.com/ulid/spec: 48 bits of milliseconds, 80 random bits, five bits a character.
std::string make_request_id() {
  constexpr std::string_view kDigits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
  std::array<unsigned char, 10> random{};
  RAND_bytes(random.data(), static_cast<int>(random.size()));
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  auto ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
  std::string id(26, '0');
  for (std::size_t i = 10; i-- > 0; ms >>= 5) id[i] = kDigits[ms & 31];
  std::uint32_t bits = 0;
  int num_bits = 0;
  std::size_t next = 10;
  for (const unsigned char byte : random) {
    bits = bits << 8 | byte;
    num_bits += 8;
    for (; num_bits >= 5; num_bits -= 5) id[next++] = kDigits[bits >> (num_bits - 5) & 31];
  }
  return id;
}

bool is_good_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace fovea::server
