#include "values.h"

#include <array>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <utility>
#include <vector>

namespace fovea::cli {
namespace {

Error usage(std::string message) { return Error{ErrorCode::kInvalidArgument, std::move(message)}; }

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

Result<double> parse_number(std::string_view text) {
  const std::optional<double> value = parse_whole<double>(text);
  if (!value || !std::isfinite(*value)) return usage(fmt::format("'{}' is not a number", text));
  return *value;
}

Result<std::uint64_t> parse_count(std::string_view text) {
  const std::optional<std::uint64_t> value = parse_whole<std::uint64_t>(text);
  if (!value) return usage(fmt::format("'{}' is not a whole number", text));
  return *value;
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
    return usage(fmt::format("'{}' has {} numbers; a point has 2 (X,Y), a box 4 (X1,Y1,X2,Y2)",
                             text, numbers.size()));
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
