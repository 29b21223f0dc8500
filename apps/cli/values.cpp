#include "values.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <utility>
#include <vector>

namespace fovea::cli {
namespace {

template <class T>
std::optional<T> parse_whole(std::string_view text) {
  T value{};
  const char* end = text.data() + text.size();
  // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): `end` bounds it
  const auto [stop, failure] = std::from_chars(text.data(), end, value);
  if (failure != std::errc{} || stop != end) return std::nullopt;
  return value;
}

struct Switch {
  std::string_view key;
  bool Compatibility::*member;
};

constexpr std::array kSwitches = {
    Switch{"tau_gelu_erf", &Compatibility::tau_gelu_erf},
    Switch{"region_gelu_erf", &Compatibility::region_gelu_erf},
    Switch{"round_outputs_to_bf16", &Compatibility::round_outputs_to_bf16},
    Switch{"sample_coordinates", &Compatibility::sample_coordinates},
    Switch{"mask_first_token", &Compatibility::mask_first_token},
    Switch{"repeat_answer_token", &Compatibility::repeat_answer_token},
    Switch{"clamp_boxes", &Compatibility::clamp_boxes},
    Switch{"embed_text_coordinates", &Compatibility::embed_text_coordinates},
    Switch{"pixels_in_fp32", &Compatibility::pixels_in_fp32},
    Switch{"separate_reasoning_budget", &Compatibility::separate_reasoning_budget},
};
constexpr std::string_view kDivisorKey = "coordinate_divisor";

}  // namespace

Error usage(std::string message) { return Error{ErrorCode::kInvalidArgument, std::move(message)}; }

Result<double> parse_number(std::string_view text) {
  const std::optional<double> value = parse_whole<double>(text);
  if (!value || !std::isfinite(*value)) return usage(fmt::format("'{}' is not a number", text));
  return *value;
}

Result<std::uint64_t> parse_count(std::string_view text) {
  const std::optional<std::uint64_t> value = parse_whole<std::uint64_t>(text);
  if (value) return *value;
  if (!is_all_digits(text)) return usage(fmt::format("'{}' is not a whole number", text));
  return usage(
      fmt::format("'{}' is more than {}", text, std::numeric_limits<std::uint64_t>::max()));
}

bool is_all_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

Result<std::size_t> parse_size(std::string_view text) {
  const Error wrong =
      usage(fmt::format("'{}' is not a size such as 4096, 512M or 1.5G (units of 1024)", text));
  constexpr std::string_view kUnits = "KMGT";
  std::string_view rest = text;
  const std::size_t digits = rest.find_first_not_of("0123456789.");
  const std::optional<double> number = parse_whole<double>(rest.substr(0, digits));
  if (!number) return wrong;
  rest.remove_prefix(std::min(digits, rest.size()));
  int power = 0;
  if (!rest.empty() && kUnits.find(rest.front()) != std::string_view::npos) {
    power = static_cast<int>(kUnits.find(rest.front())) + 1;
    rest.remove_prefix(1);
    if (!rest.empty() && rest.front() == 'i') {
      rest.remove_prefix(1);
      if (rest != "B") return wrong;
    }
  }
  if (!rest.empty() && rest != "B") return wrong;
  const double bytes = std::ldexp(*number, 10 * power);
  // Half a byte is a slip; 2^53 bytes are more than any machine has.
  if (bytes != std::floor(bytes) && power == 0) return wrong;
  if (bytes > 9007199254740992.0) return usage(fmt::format("'{}' is too large a size", text));
  return static_cast<std::size_t>(bytes);
}

Result<std::pair<std::int32_t, float>> parse_logit_bias(std::string_view text) {
  const std::size_t equals = text.find('=');
  const std::string_view value = equals == text.npos ? "" : text.substr(equals + 1);
  const std::optional<std::int32_t> id = parse_whole<std::int32_t>(text.substr(0, equals));
  const std::optional<double> bias = parse_whole<double>(value);
  if (!id || *id < 0 || !bias || !(std::abs(*bias) <= 100)) {
    return usage(
        fmt::format("'{}' is not ID=VALUE with a token's id and a number from -100 to 100", text));
  }
  return std::pair(*id, static_cast<float>(*bias));
}

Result<SpatialRef> parse_spatial_ref(std::string_view text) {
  std::vector<float> numbers;
  for (std::string_view rest = text;;) {
    const std::size_t comma = rest.find(',');
    const Result<double> number = parse_number(rest.substr(0, comma));
    if (!number.ok() || *number < 0 || *number > 1) {
      return usage(fmt::format("'{}' is not X,Y or X1,Y1,X2,Y2 with fractions from 0 to 1", text));
    }
    numbers.push_back(static_cast<float>(*number));
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (numbers.size() == 2) return SpatialRef(std::array{numbers[0], numbers[1]});
  if (numbers.size() != 4) {
    return usage(fmt::format("'{}' has {} number{}; a point has 2 (X,Y), a box 4 (X1,Y1,X2,Y2)",
                             text, numbers.size(), numbers.size() == 1 ? "" : "s"));
  }
  if (numbers[0] > numbers[2] || numbers[1] > numbers[3]) {
    return usage(fmt::format("'{}' needs X1 <= X2 and Y1 <= Y2", text));
  }
  return SpatialRef(std::array{numbers[0], numbers[1], numbers[2], numbers[3]});
}

Status apply_compatibility(std::string_view text, Compatibility& compatibility) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) {
    return usage(fmt::format("'{}' is not KEY=VALUE", text));
  }
  const std::string_view key = text.substr(0, equals);
  const std::string_view value = text.substr(equals + 1);
  if (key == kDivisorKey) {
    if (value != "1023" && value != "1024") {
      return usage(fmt::format("{} is 1023 or 1024, not '{}'", kDivisorKey, value));
    }
    compatibility.coordinate_divisor = value == "1023" ? 1023 : 1024;
    return {};
  }
  for (const Switch& entry : kSwitches) {
    if (entry.key != key) continue;
    if (value != "true" && value != "false") {
      return usage(fmt::format("{} is true or false, not '{}'", key, value));
    }
    compatibility.*entry.member = value == "true";
    return {};
  }
  return usage(fmt::format("no switch is called '{}'; there are {}", key, compatibility_keys()));
}

std::string compatibility_keys() {
  std::string keys(kDivisorKey);
  for (const Switch& entry : kSwitches) {
    keys += ", ";
    keys += entry.key;
  }
  return keys;
}

}  // namespace fovea::cli
