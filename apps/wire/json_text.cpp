#include "json_text.h"

#include <boost/json.hpp>
#include <cmath>
#include <cstdint>
#include <fmt/format.h>
#include <iterator>

namespace fovea::wire {
namespace {

namespace json = boost::json;

void append(std::string& out, const json::value& value);

template <class Range, class AppendItem>
void append_list(std::string& out, char open, char close, const Range& range,
                 AppendItem append_item) {
  out += open;
  bool first = true;
  for (const auto& item : range) {
    if (!first) out += ',';
    first = false;
    append_item(item);
  }
  out += close;
}

std::string print_double(double value) {
  if (!std::isfinite(value)) return "null";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// Boost.JSON's own printing of doubles (0.25 as 2.5E-1) is correct, and hard to read.
void append(std::string& out, const json::value& value) {
  if (value.is_double()) {
    out += print_double(value.get_double());
  } else if (value.is_array()) {
    append_list(out, '[', ']', value.get_array(),
                [&out](const json::value& item) { append(out, item); });
  } else if (value.is_object()) {
    append_list(out, '{', '}', value.get_object(), [&out](const json::key_value_pair& pair) {
      out += json::serialize(json::string(pair.key()));
      out += ':';
      append(out, pair.value());
    });
  } else {
    out += json::serialize(value);
  }
}

// The code point at the beginning of `text` and its length in bytes; U+FFFD and 1 for no UTF-8.
struct CodePoint {
  std::uint32_t value = 0xfffd;
  std::size_t num_bytes = 1;
};
CodePoint first_code_point(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  const std::size_t length = lead >= 0xf0 && lead <= 0xf4 ? 4 : lead >= 0xe0 && lead < 0xf0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return {};
  std::uint32_t value = lead & (0x7fU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    value = value << 6 | (byte(i) & 0x3fU);
  }
  constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = value >= 0xd800 && value < 0xe000;
  if (value < kSmallest[length] || value > 0x10ffff || is_surrogate) return {};
  return {value, length};
}

}  // namespace

std::string print(const json::value& value, Charset charset) {
  std::string out;
  append(out, value);
  return charset == Charset::kAscii ? escape_non_ascii(out) : out;
}

std::string json_string(std::string_view text) { return json::serialize(json::string(text)); }

std::string escape_non_ascii(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  for (std::size_t i = 0; i < json.size();) {
    if (static_cast<std::uint8_t>(json[i]) < 0x80) {
      out += json[i++];
      continue;
    }
    const CodePoint point = first_code_point(json.substr(i));
    i += point.num_bytes;
    const auto unit = [&out](std::uint32_t value) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", value);
    };
    if (point.value < 0x10000) {
      unit(point.value);
    } else {
      unit(0xd800 + ((point.value - 0x10000) >> 10));
      unit(0xdc00 + ((point.value - 0x10000) & 0x3ff));
    }
  }
  return out;
}

}  // namespace fovea::wire
