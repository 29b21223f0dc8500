#include "skills/json_schema.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/try.h"
#include "skills/json_grammar.h"

namespace fovea::skills {
namespace {

using Symbol = Grammar::Symbol;
using Sequence = Grammar::Sequence;

constexpr std::int64_t kMaxRepetition = 10'000;
constexpr std::size_t kMaxSymbols = 500'000;  // of the grammar: some 4 MB

// What says nothing about answers.
constexpr std::array<std::string_view, 12> kAnnotations{
    "$schema",     "$id",        "$comment", "$defs",     "definitions", "title",
    "description", "deprecated", "readOnly", "writeOnly", "default",     "examples"};

bool contains(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string_view type_name(const json::value& value) {
  if (value.is_string()) return "string";
  if (value.is_int64() || value.is_uint64()) return "integer";
  if (value.is_double()) return "number";
  if (value.is_bool()) return "boolean";
  if (value.is_null()) return "null";
  return value.is_array() ? "array" : "object";
}

// A number that is an integer counts as both.
bool has_type(const json::value& value, std::string_view type) {
  return type_name(value) == type || (type == "number" && type_name(value) == "integer");
}

class SchemaCompiler {
 public:
  explicit SchemaCompiler(const json::value& root) : root_(root), json_(grammar_) {}

  Result<Grammar> compile() {
    FOVEA_TRY(const Symbol root, reference("#", "$"));
    while (!open_references_.empty()) {
      const OpenReference next = std::move(open_references_.back());
      open_references_.pop_back();
      FOVEA_TRY(const Symbol body, value(*next.schema, next.path));
      grammar_.add_alternative(next.rule, {body});
    }
    grammar_.finish(root);
    const int height = grammar_.height(grammar_.alternatives(root).front());
    if (height >= Grammar::kEndless) {
      return invalid_argument("json_schema: no finite answer meets it: a part needs itself");
    }
    if (height > GrammarAutomaton::kMaxHeight) {
      return error(ErrorCode::kResourceExhausted, "json_schema: its answers nest too deep");
    }
    return std::move(grammar_);
  }

 private:
  // A part that is referred to, compiled once; references to it may come from inside.
  struct OpenReference {
    Symbol rule;
    const json::value* schema;
    std::string path;
  };

  Result<Symbol> value(const json::value& schema, const std::string& path) {
    if (grammar_.num_symbols() > kMaxSymbols) {
      return error(ErrorCode::kResourceExhausted, "json_schema: {}: too large up to here", path);
    }
    if (schema.is_bool() && schema.get_bool()) return json_.any_value();
    const json::object* object = schema.if_object();
    if (object == nullptr) {
      return invalid_argument("json_schema: {}: a schema is an object or true", path);
    }
    if (const json::value* target = object->if_contains("$ref")) {
      FOVEA_TRY_STATUS(check_keywords(*object, path, "$ref", {}));
      if (!target->is_string()) return invalid_argument("json_schema: {}.$ref: not a string", path);
      return reference(target->get_string(), path);
    }
    if (object->contains("anyOf")) return any_of(*object, path);
    if (object->contains("enum") || object->contains("const")) return literals(*object, path);
    FOVEA_TRY(const std::vector<std::string> types, types_of(*object, path));
    if (types.empty()) {
      FOVEA_TRY_STATUS(check_keywords(*object, path, "a schema without type", {}));
      return json_.any_value();
    }
    if (types.size() == 1) return typed(types.front(), *object, path, Alone::kYes);
    const Symbol any = grammar_.add_rule();
    FOVEA_TRY_STATUS(check_keywords(*object, path, "several types",
                                    {"type", "properties", "required", "additionalProperties",
                                     "items", "minItems", "maxItems", "minLength", "maxLength"}));
    for (const std::string& type : types) {
      FOVEA_TRY(const Symbol one, typed(type, *object, path, Alone::kNo));
      grammar_.add_alternative(any, {one});
    }
    return any;
  }

  // Whether `known` (and annotations) are all that a schema has. What is left out would not hold.
  static Status check_keywords(const json::object& schema, const std::string& path,
                               std::string_view beside,
                               std::initializer_list<std::string_view> known) {
    for (const auto& member : schema) {
      const std::string_view key = member.key();
      if (key == beside || contains(kAnnotations, key) ||
          std::find(known.begin(), known.end(), key) != known.end()) {
        continue;
      }
      return error(ErrorCode::kUnsupported,
                   "json_schema: {}: the keyword '{}' is not supported{}{}", path,
                   std::string_view(key), beside.empty() ? "" : " beside ", beside);
    }
    return {};
  }

  static Result<std::vector<std::string>> types_of(const json::object& schema,
                                                   const std::string& path) {
    std::vector<std::string> types;
    const json::value* type = schema.if_contains("type");
    if (type == nullptr) return types;
    if (type->is_string()) types.emplace_back(type->get_string());
    if (const json::array* several = type->if_array()) {
      for (const json::value& one : *several) {
        if (!one.is_string()) return invalid_argument("json_schema: {}.type: not strings", path);
        types.emplace_back(one.get_string());
      }
    }
    static constexpr std::array<std::string_view, 7> kTypes{
        "object", "array", "string", "number", "integer", "boolean", "null"};
    for (const std::string& one : types) {
      if (!contains(kTypes, one)) {
        return invalid_argument("json_schema: {}.type: '{}' is no type", path, one);
      }
    }
    if (types.empty()) {
      return invalid_argument("json_schema: {}.type: neither a type nor a list of them", path);
    }
    return types;
  }

  // One of several types takes the keywords that are its own and leaves the others alone.
  enum class Alone { kYes, kNo };

  Result<Symbol> typed(std::string_view type, const json::object& schema, const std::string& path,
                       Alone alone) {
    const auto check = [&](std::initializer_list<std::string_view> known) -> Status {
      return alone == Alone::kYes ? check_keywords(schema, path, "type", known) : Status();
    };
    if (type == "object") {
      FOVEA_TRY_STATUS(check({"properties", "required", "additionalProperties"}));
      return object(schema, path);
    }
    if (type == "array") {
      FOVEA_TRY_STATUS(check({"items", "minItems", "maxItems"}));
      FOVEA_TRY(const Repetition count, repetition(schema, path, "minItems", "maxItems"));
      Symbol item;
      if (const json::value* items = schema.if_contains("items")) {
        FOVEA_TRY(item, value(*items, path + ".items"));
      } else {
        item = json_.any_value();
      }
      return json_.array(item, count);
    }
    if (type == "string") {
      FOVEA_TRY_STATUS(check({"minLength", "maxLength"}));
      FOVEA_TRY(const Repetition length, repetition(schema, path, "minLength", "maxLength"));
      return json_.string(length);
    }
    FOVEA_TRY_STATUS(check({}));
    if (type == "integer") return json_.integer();
    if (type == "number") return json_.number();
    return type == "boolean" ? json_.boolean() : json_.null();
  }

  static Result<Repetition> repetition(const json::object& schema, const std::string& path,
                                       std::string_view min_key, std::string_view max_key) {
    const auto count = [&](std::string_view key) -> Result<std::optional<std::int64_t>> {
      const json::value* found = schema.if_contains(key);
      if (found == nullptr) return std::optional<std::int64_t>();
      boost::system::error_code failure;
      const auto number = found->to_number<std::int64_t>(failure);
      if (failure || number < 0) {
        return invalid_argument("json_schema: {}.{}: not a count", path, key);
      }
      if (number > kMaxRepetition) {
        return error(ErrorCode::kResourceExhausted, "json_schema: {}.{}: {} is more than {}", path,
                     key, number, kMaxRepetition);
      }
      return std::optional(number);
    };
    FOVEA_TRY(const std::optional<std::int64_t> min, count(min_key));
    FOVEA_TRY(const std::optional<std::int64_t> max, count(max_key));
    if (max && *max < min.value_or(0)) {
      return invalid_argument("json_schema: {}: {} is less than {}", path, max_key, min_key);
    }
    return Repetition{min.value_or(0), max};
  }

  // Properties in the schema's order; those that are not required may be left out.
  Result<Symbol> object(const json::object& schema, const std::string& path) {
    const json::value* additional = schema.if_contains("additionalProperties");
    if (additional != nullptr && !additional->is_bool()) {
      return error(ErrorCode::kUnsupported,
                   "json_schema: {}.additionalProperties: only true and false are supported", path);
    }
    const bool closed = additional != nullptr && !additional->get_bool();
    static const json::object none;
    const json::object* properties = &none;
    if (const json::value* found = schema.if_contains("properties")) {
      properties = found->if_object();
      if (properties == nullptr) {
        return invalid_argument("json_schema: {}.properties: not an object", path);
      }
    }
    FOVEA_TRY(const std::vector<std::string_view> required, required_of(schema, *properties, path));
    if (properties->empty() && !closed) return json_.any_object();

    struct Member {
      Sequence text;
      bool required;
    };
    std::vector<Member> members;
    for (const auto& property : *properties) {
      const std::string_view key = property.key();
      FOVEA_TRY(const Symbol content,
                value(property.value(), fmt::format("{}.properties.{}", path, key)));
      const std::string quoted = boost::json::serialize(boost::json::string(key));
      members.push_back(
          {grammar_.literal(quoted + ":") + Sequence{content}, contains(required, key)});
    }
    // From the last to the first: what may follow when none was written yet, and when some were.
    const Sequence close = grammar_.literal("}");
    Symbol first = grammar_.add_rule({close}), rest = first;
    for (std::size_t i = members.size(); i-- > 0;) {
      const auto& [text, is_required] = members[i];
      const Symbol next_first = grammar_.add_rule({text + Sequence{rest}});
      const Symbol next_rest = grammar_.add_rule({grammar_.literal(",") + text + Sequence{rest}});
      if (!is_required) {
        grammar_.add_alternative(next_first, {first});
        grammar_.add_alternative(next_rest, {rest});
      }
      first = next_first;
      rest = next_rest;
    }
    return grammar_.add_rule({grammar_.literal("{") + Sequence{first}});
  }

  static Result<std::vector<std::string_view>> required_of(const json::object& schema,
                                                           const json::object& properties,
                                                           const std::string& path) {
    std::vector<std::string_view> names;
    const json::value* found = schema.if_contains("required");
    if (found == nullptr) return names;
    const json::array* list = found->if_array();
    if (list == nullptr) return invalid_argument("json_schema: {}.required: not a list", path);
    for (const json::value& name : *list) {
      if (!name.is_string() || !properties.contains(name.get_string())) {
        return invalid_argument("json_schema: {}.required: {} is not among the properties", path,
                                boost::json::serialize(name));
      }
      names.emplace_back(name.get_string());
    }
    return names;
  }

  Result<Symbol> any_of(const json::object& schema, const std::string& path) {
    FOVEA_TRY_STATUS(check_keywords(schema, path, "anyOf", {}));
    const json::array* list = schema.at("anyOf").if_array();
    if (list == nullptr || list->empty()) {
      return invalid_argument("json_schema: {}.anyOf: not a list of schemas", path);
    }
    const Symbol any = grammar_.add_rule();
    for (std::size_t i = 0; i < list->size(); ++i) {
      FOVEA_TRY(const Symbol one, value((*list)[i], fmt::format("{}.anyOf[{}]", path, i)));
      grammar_.add_alternative(any, {one});
    }
    return any;
  }

  // One of the values that enum or const list, of the type when one is given.
  Result<Symbol> literals(const json::object& schema, const std::string& path) {
    const bool is_enum = schema.contains("enum");
    FOVEA_TRY_STATUS(check_keywords(schema, path, is_enum ? "enum" : "const", {"type"}));
    FOVEA_TRY(const std::vector<std::string> types, types_of(schema, path));
    json::array values;
    if (!is_enum) {
      values.push_back(schema.at("const"));
    } else if (const json::array* list = schema.at("enum").if_array()) {
      values = *list;
    } else {
      return invalid_argument("json_schema: {}.enum: not a list", path);
    }
    const Symbol any = grammar_.add_rule();
    bool is_empty = true;
    for (const json::value& one : values) {
      const bool fits = types.empty() ||
                        std::any_of(types.begin(), types.end(),
                                    [&](const std::string& type) { return has_type(one, type); });
      if (!fits) continue;
      grammar_.add_alternative(any, grammar_.literal(boost::json::serialize(one)));
      is_empty = false;
    }
    if (is_empty) return invalid_argument("json_schema: {}: no value is left to choose", path);
    return any;
  }

  // "#", "#/$defs/NAME" or "#/definitions/NAME".
  Result<Symbol> reference(std::string_view target, const std::string& path) {
    if (const auto known = references_.find(target); known != references_.end()) {
      return known->second;
    }
    const json::value* schema = target == "#" ? &root_ : nullptr;
    std::string place = "$";
    for (const std::string_view folder : {"$defs", "definitions"}) {
      const std::string prefix = fmt::format("#/{}/", folder);
      const json::object* root = root_.if_object();
      if (root == nullptr || !target.starts_with(prefix)) continue;
      const json::value* parts = root->if_contains(folder);
      if (parts == nullptr || !parts->is_object()) continue;
      const std::string_view name = target.substr(prefix.size());
      schema = parts->get_object().if_contains(name);
      place = fmt::format("$.{}.{}", folder, name);
    }
    if (schema == nullptr) {
      return invalid_argument("json_schema: {}.$ref: there is no '{}'", path, target);
    }
    const Symbol rule = grammar_.add_rule();
    references_.emplace(target, rule);
    open_references_.push_back({rule, schema, std::move(place)});
    return rule;
  }

  const json::value& root_;
  Grammar grammar_;
  JsonGrammar json_;
  std::map<std::string, Symbol, std::less<>> references_;
  std::vector<OpenReference> open_references_;
};

}  // namespace

Result<Grammar> compile_json_schema(std::string_view schema) {
  if (schema.size() > kMaxSchemaBytes) {
    return error(ErrorCode::kResourceExhausted, "json_schema has {} bytes; at most {} are read",
                 schema.size(), kMaxSchemaBytes);
  }
  FOVEA_TRY(const json::value root, json::parse(schema, "json_schema"));
  return SchemaCompiler(root).compile();
}

}  // namespace fovea::skills
