#pragma once

#include <algorithm>
#include <string_view>

#include "base/json.h"

namespace fovea::testing_support {

/// Whether `value` meets `schema`, read straight off the JSON Schema specification, for the
/// keywords that answers can be held to. Properties that are not listed count as wrong once some
/// are.
inline bool meets_schema(const json::value& value, const json::value& schema,
                         const json::value& root) {
  if (schema.is_bool()) return schema.get_bool();
  const json::object& rules = schema.as_object();
  const auto count = [&](std::string_view key, std::size_t otherwise) {
    return rules.contains(key) ? rules.at(key).to_number<std::size_t>() : otherwise;
  };
  if (const auto* ref = rules.if_contains("$ref")) {
    const std::string_view target = ref->as_string();
    if (target == "#") return meets_schema(value, root, root);
    const std::string_view name = target.substr(target.rfind('/') + 1);
    return meets_schema(value, root.at("$defs").at(name), root);
  }
  if (const auto* any = rules.if_contains("anyOf")) {
    const json::array& list = any->as_array();
    return std::any_of(list.begin(), list.end(),
                       [&](const json::value& one) { return meets_schema(value, one, root); });
  }
  if (const auto* one = rules.if_contains("const"); one != nullptr && value != *one) return false;
  if (const auto* list = rules.if_contains("enum")) {
    const json::array& values = list->as_array();
    if (std::find(values.begin(), values.end(), value) == values.end()) return false;
  }
  if (const auto* type = rules.if_contains("type")) {
    const auto is = [&](const json::value& name) {
      return (name == "string" && value.is_string()) || (name == "null" && value.is_null()) ||
             (name == "boolean" && value.is_bool()) || (name == "object" && value.is_object()) ||
             (name == "array" && value.is_array()) || (name == "number" && value.is_number()) ||
             (name == "integer" && (value.is_int64() || value.is_uint64()));
    };
    if (const auto* types = type->if_array()) {
      if (std::none_of(types->begin(), types->end(), is)) return false;
    } else if (!is(*type)) {
      return false;
    }
  }
  if (const auto* text = value.if_string()) {
    const auto length =
        static_cast<std::size_t>(std::count_if(text->begin(), text->end(), [](char c) {
          return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
        }));
    if (length < count("minLength", 0) || length > count("maxLength", length)) return false;
  }
  if (const auto* items = value.if_array()) {
    if (items->size() < count("minItems", 0) || items->size() > count("maxItems", items->size()))
      return false;
    if (const auto* item = rules.if_contains("items")) {
      if (!std::all_of(items->begin(), items->end(),
                       [&](const json::value& one) { return meets_schema(one, *item, root); }))
        return false;
    }
  }
  if (const auto* members = value.if_object()) {
    const auto* properties = rules.if_contains("properties");
    if (properties != nullptr) {
      for (const auto& member : *members) {
        const auto* expected = properties->as_object().if_contains(member.key());
        if (expected == nullptr || !meets_schema(member.value(), *expected, root)) return false;
      }
    }
    if (const auto* required = rules.if_contains("required")) {
      for (const json::value& name : required->as_array()) {
        if (!members->contains(name.as_string())) return false;
      }
    }
  }
  return true;
}

}  // namespace fovea::testing_support
