#include "fields.h"

#include <cmath>
#include <fmt/format.h>
#include <utility>

namespace fovea::wire {
namespace {

namespace json = boost::json;

std::string trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n\f\v";
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1));
}

}  // namespace

FieldReader::FieldReader(const json::object& object, std::string prefix)
    : top_(object), prefix_(std::move(prefix)) {}

void FieldReader::look_in(std::string_view name) {
  nested_ = object({name});
  nested_name_ = std::string(name) + ".";
}

FieldReader::Found FieldReader::look_up(Names names) const {
  for (const json::object* place : {nested_, &top_}) {
    if (place == nullptr) continue;
    for (const std::string_view name : names) {
      const json::value* value = place->if_contains(name);
      if (value != nullptr && !value->is_null()) {
        return {value, fmt::format("{}{}{}", prefix_, place == nested_ ? nested_name_ : "", name)};
      }
    }
  }
  return {nullptr, prefix_ + std::string(*names.begin())};
}

const json::value* FieldReader::find(Names names) { return look_up(names).value; }

void FieldReader::wrong_type(const Found& found, std::string_view wanted) {
  fail(FieldError{found.name, "invalid_value",
                  fmt::format("Field '{}' must be {}", found.name, wanted)});
}

std::optional<std::string> FieldReader::string(Names names) {
  const Found found = look_up(names);
  if (found.value == nullptr) return std::nullopt;
  if (const json::string* text = found.value->if_string()) return std::string(*text);
  wrong_type(found, "a string");
  return std::nullopt;
}

std::optional<bool> FieldReader::boolean(Names names) {
  const Found found = look_up(names);
  if (found.value == nullptr) return std::nullopt;
  if (const bool* value = found.value->if_bool()) return *value;
  wrong_type(found, "true or false");
  return std::nullopt;
}

std::optional<double> FieldReader::number(Names names, std::string_view wanted,
                                          bool (*fits)(double)) {
  const Found found = look_up(names);
  if (found.value == nullptr) return std::nullopt;
  if (found.value->is_number()) {
    const double value = found.value->to_number<double>();
    if (std::isfinite(value) && fits(value)) return value;
  }
  wrong_type(found, fmt::format("a number {}", wanted));
  return std::nullopt;
}

std::optional<std::int64_t> FieldReader::integer(Names names, std::int64_t minimum,
                                                 std::int64_t maximum) {
  const Found found = look_up(names);
  if (found.value == nullptr) return std::nullopt;
  if (found.value->is_number()) {
    boost::system::error_code failure;
    // Exact conversion only: 3.0 is whole, 3.5 and 1e30 are an error.
    const auto value = found.value->to_number<std::int64_t>(failure);
    if (!failure && value >= minimum && value <= maximum) return value;
  }
  wrong_type(found, fmt::format("a whole number from {} to {}", minimum, maximum));
  return std::nullopt;
}

std::vector<std::string> FieldReader::strings(Names names) {
  const Found found = look_up(names);
  std::vector<std::string> list;
  if (found.value == nullptr) return list;
  if (const json::string* one = found.value->if_string()) {
    list.emplace_back(*one);
    return list;
  }
  const json::array* items = found.value->if_array();
  if (items == nullptr) {
    wrong_type(found, "a string or a list of strings");
    return list;
  }
  for (const json::value& item : *items) {
    const json::string* text = item.if_string();
    if (text == nullptr) {
      wrong_type(found, "a string or a list of strings");
      return {};
    }
    list.emplace_back(*text);
  }
  return list;
}

const json::object* FieldReader::object(Names names) {
  const Found found = look_up(names);
  if (found.value == nullptr) return nullptr;
  if (const json::object* value = found.value->if_object()) return value;
  wrong_type(found, "an object");
  return nullptr;
}

const json::array* FieldReader::array(Names names) {
  const Found found = look_up(names);
  if (found.value == nullptr) return nullptr;
  if (const json::array* value = found.value->if_array()) return value;
  wrong_type(found, "a list");
  return nullptr;
}

std::string FieldReader::required_text(Names names) {
  const Found found = look_up(names);
  if (found.value == nullptr) {
    fail(FieldError{found.name, "missing_field", fmt::format("Field '{}' is missing", found.name)});
    return {};
  }
  const json::string* text = found.value->if_string();
  std::string value = text == nullptr ? std::string() : trimmed(*text);
  if (value.empty()) wrong_type(found, "a non-empty string");
  return value;
}

void FieldReader::fail(std::string_view name, std::string code, std::string message) {
  fail(FieldError{prefix_ + std::string(name), std::move(code), std::move(message)});
}

void FieldReader::fail(FieldError error) {
  if (!error_) error_ = std::move(error);
}

}  // namespace fovea::wire
