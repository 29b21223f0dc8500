#pragma once

#include <string_view>

#include "fovea/result.h"

#include "skills/grammar.h"

namespace fovea::skills {

inline constexpr std::size_t kMaxSchemaBytes = 100'000;

/// Compiles a JSON schema to the grammar of its answers: valid JSON without white space, properties
/// in the schema's order.
///
/// Known are `type` (one or several), `properties`, `required`, `additionalProperties` (true or
/// false), `items`, `minItems`, `maxItems`, `minLength`, `maxLength`, `enum`, `const`, `anyOf`,
/// `$ref` to "#" or into `$defs` or `definitions`, and `true` and `{}` for any value; titles,
/// descriptions, defaults and examples are read over. Answers hold listed properties only, unless
/// none are listed. Numbers have at most 15 digits on each side of the point, so that nothing reads
/// them differently.
///
/// Errors name the place in the schema ("json_schema: $.properties.age: ..."): kUnsupported for
/// other keywords, kInvalidArgument for schemas that are malformed or that no finite answer meets,
/// kResourceExhausted for those that are too large or nest too deep.
Result<Grammar> compile_json_schema(std::string_view schema);

}  // namespace fovea::skills
