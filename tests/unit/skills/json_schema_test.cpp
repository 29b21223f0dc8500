#include "skills/json_schema.h"

#include <gtest/gtest.h>
#include <string>

#include "base/json.h"

namespace fovea::skills {
namespace {

// Whether the automaton of the schema takes exactly `text` as a whole.
bool accepts(std::string_view schema, std::string_view text) {
  const auto grammar = compile_json_schema(schema);
  EXPECT_TRUE(grammar.ok()) << grammar.error().message;
  if (!grammar.ok()) return false;
  GrammarAutomaton automaton(*grammar);
  std::int32_t state = automaton.start();
  for (const char c : text) {
    state = automaton.step(state, static_cast<std::uint8_t>(c));
    if (state == GrammarAutomaton::kDead) return false;
  }
  return automaton.accepts(state);
}

Error refusal(std::string_view schema) {
  const auto grammar = compile_json_schema(schema);
  EXPECT_FALSE(grammar.ok()) << schema;
  return grammar.ok() ? Error{} : grammar.error();
}

void expect_refusal(std::string_view schema, ErrorCode code, std::string_view part) {
  const Error error = refusal(schema);
  EXPECT_EQ(error.code, code) << error.message;
  EXPECT_NE(error.message.find(part), std::string::npos) << error.message;
}

void expect_texts(std::string_view schema, std::initializer_list<std::string_view> yes,
                  std::initializer_list<std::string_view> no) {
  for (const std::string_view text : yes) EXPECT_TRUE(accepts(schema, text)) << schema << text;
  for (const std::string_view text : no) EXPECT_FALSE(accepts(schema, text)) << schema << text;
}

TEST(JsonSchema, Scalars) {
  expect_texts(R"({"type":"integer"})", {"0", "7", "-12", "123456789012345"},
               {"", "-0", "-", "01", "1.0", "1e2", "1234567890123456", " 1", "1 "});
  expect_texts(R"({"type":"number"})", {"0", "-0.5", "12.25", "1e9", "-1.5E-12", "0.0"},
               {"", ".5", "1.", "1e", "+1", "1e100", "00", "-"});
  expect_texts(R"({"type":"boolean"})", {"true", "false"}, {"tru", "True", "null"});
  expect_texts(R"({"type":"null"})", {"null"}, {"nul", "0"});
  expect_texts(R"({"type":["integer","null"]})", {"3", "null"}, {"\"3\"", "true"});
}

TEST(JsonSchema, StringsAreWellFormedUtf8WithEscapes) {
  expect_texts(R"({"type":"string"})",
               {"\"\"", "\"a b\"", "\"\xc3\xa9\"", "\"\xe2\x82\xac\"", "\"\xf0\x9f\x90\xb1\"",
                R"("\"\\\/\b\f\n\r\t\u00e9\uD7ff")"},
               {"\"", "\"a\nb\"", "\"a\"b\"", "\"\\x\"", "\"\xc3\"", "\"\xc0\x80\"",
                "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", R"("\ud800")", R"("\u12g4")", "a"});
}

TEST(JsonSchema, LengthsCountCodePoints) {
  expect_texts(R"({"type":"string","minLength":2,"maxLength":3})",
               {"\"ab\"", "\"\xe2\x82\xac\xc3\xa9\"", R"("\u0041bc")"},
               {"\"a\"", "\"abcd\"", "\"\"", "\"\xe2\x82\xac\""});
  expect_texts(R"({"type":"string","maxLength":0})", {"\"\""}, {"\"a\""});
  expect_texts(R"({"type":"string","minLength":2})", {"\"ab\"", "\"abcdefgh\""}, {"\"a\""});
}

TEST(JsonSchema, ArraysHoldTheirCounts) {
  expect_texts(R"({"type":"array","items":{"type":"integer"}})", {"[]", "[1]", "[1,2,3]"},
               {"[1,]", "[,1]", "[1 ,2]", "[true]", "["});
  expect_texts(R"({"type":"array","items":{"type":"null"},"minItems":2,"maxItems":3})",
               {"[null,null]", "[null,null,null]"}, {"[]", "[null]", "[null,null,null,null]"});
  expect_texts(R"({"type":"array","items":{"type":"null"},"minItems":1})",
               {"[null]", "[null,null,null,null]"}, {"[]"});
  expect_texts(R"({"type":"array","maxItems":0})", {"[]"}, {"[1]"});
  expect_texts(R"({"type":"array","items":{"type":"null"},"minItems":0,"maxItems":1})",
               {"[]", "[null]"}, {"[null,null]"});
}

TEST(JsonSchema, ObjectsHaveTheirPropertiesInOrder) {
  constexpr std::string_view kSchema =
      R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"null"},)"
      R"("c":{"type":"boolean"}},"required":["b"],"additionalProperties":false})";
  expect_texts(kSchema,
               {R"({"b":null})", R"({"a":1,"b":null})", R"({"b":null,"c":true})",
                R"({"a":1,"b":null,"c":false})"},
               {"{}", R"({"a":1})", R"({"b":null,"a":1})", R"({"b":null,})", R"({,"b":null})",
                R"({"b":null,"d":1})", R"({"a":1"b":null})"});
  expect_texts(R"({"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}}})",
               {"{}", R"({"a":null})", R"({"b":null})", R"({"a":null,"b":null})"}, {R"({"c":1})"});
  expect_texts(R"({"type":"object","additionalProperties":false})", {"{}"}, {R"({"a":1})"});
  expect_texts(R"({"type":"object","properties":{"say \"hi\"\n":{"const":1}},"required":[]})",
               {R"({"say \"hi\"\n":1})"}, {"{\"say \"hi\"\n\":1}"});
}

TEST(JsonSchema, EnumsAndConstantsAreSpelledOut) {
  expect_texts(R"({"enum":["red","green",3,null,true]})",
               {"\"red\"", "\"green\"", "3", "null", "true"}, {"\"re\"", "4", "false", "red"});
  expect_texts(R"({"enum":["a","ab"]})", {"\"a\"", "\"ab\""}, {"\"abc\""});
  expect_texts(R"({"type":"string","enum":["a",1]})", {"\"a\""}, {"1"});
  expect_texts(R"({"const":{"x":[1,"y"]}})", {R"({"x":[1,"y"]})"}, {R"({"x":[1]})"});
}

TEST(JsonSchema, AnyOfFollowsEveryReadingAtOnce) {
  constexpr std::string_view kSchema =
      R"({"anyOf":[{"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"integer"}},)"
      R"("required":["kind","x"]},{"type":"object","properties":{"kind":{"const":"b"}},)"
      R"("required":["kind"]},{"type":"integer"},{"const":12}]})";
  expect_texts(kSchema, {R"({"kind":"a","x":1})", R"({"kind":"b"})", "12", "1"},
               {R"({"kind":"a"})", R"({"kind":"b","x":1})", "{}"});
}

TEST(JsonSchema, ReferencesMayComeBackToThemselves) {
  constexpr std::string_view kTree =
      R"({"$defs":{"node":{"type":"object","properties":{"left":{"$ref":"#/$defs/node"},)"
      R"("v":{"type":"integer"}},"required":["v"]}},"$ref":"#/$defs/node"})";
  expect_texts(kTree, {R"({"v":1})", R"({"left":{"left":{"v":3},"v":2},"v":1})"},
               {R"({"left":{},"v":1})", R"({"left":1,"v":1})"});
  expect_texts(R"({"anyOf":[{"type":"null"},{"type":"array","items":{"$ref":"#"}}]})",
               {"null", "[]", "[[null],[]]"}, {"[1]", "[[]"});
  expect_texts(R"({"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"const":1}]}},"$ref":"#/$defs/a"})",
               {"1"}, {"2"});
}

TEST(JsonSchema, NestingThatCouldNotBeFinishedIsNotBegun) {
  constexpr std::string_view kLists = R"({"type":"array","items":{"$ref":"#"}})";
  const auto grammar = compile_json_schema(kLists);
  ASSERT_TRUE(grammar.ok());
  GrammarAutomaton automaton(*grammar);
  std::int32_t state = automaton.start();
  std::string text;
  while (automaton.step(state, '[') != GrammarAutomaton::kDead) {
    state = automaton.step(state, '[');
    text += '[';
    ASSERT_LT(text.size(), 1000u);
  }
  while (!automaton.accepts(state)) {
    state = automaton.step(state, ']');
    ASSERT_NE(state, GrammarAutomaton::kDead);
    text += ']';
  }
  EXPECT_GT(text.size(), 40u);
  EXPECT_TRUE(json::parse(text, "answer").ok());
}

TEST(JsonSchema, AnyValueIsAnyJson) {
  for (const std::string_view schema : {"true", "{}", R"({"description":"whatever"})"}) {
    expect_texts(schema, {R"({"a":[1,{"b":null}],"":"x"})", "[]", "{}", "1.5", "\"x\"", "[[],{}]"},
                 {"{a:1}", "[1,]", "{\"a\"}", ""});
  }
  expect_texts(R"({"type":"object"})", {"{}", R"({"a":{"b":[1]}})"}, {"[]", "1"});
  expect_texts(R"({"type":"array"})", {"[]", R"([1,{"b":[1]}])"}, {"{}", "1"});
}

TEST(JsonSchema, WhatIsNotSupportedIsNamedWithItsPlace) {
  expect_refusal(R"({"type":"object","properties":{"age":{"type":"integer","minimum":3}}})",
                 ErrorCode::kUnsupported, "$.properties.age: the keyword 'minimum'");
  expect_refusal(R"({"type":"array","items":{"type":"string","pattern":"a"}})",
                 ErrorCode::kUnsupported, "$.items: the keyword 'pattern'");
  expect_refusal(R"({"oneOf":[{"type":"null"}]})", ErrorCode::kUnsupported, "'oneOf'");
  expect_refusal(R"({"anyOf":[true,{"not":{}}]})", ErrorCode::kUnsupported, "$.anyOf[1]: the");
  expect_refusal(R"({"type":"integer","maxLength":3})", ErrorCode::kUnsupported, "'maxLength'");
  expect_refusal(R"({"$ref":"#","type":"null"})", ErrorCode::kUnsupported, "beside $ref");
  expect_refusal(R"({"$defs":{"a":{"type":"string","format":"date"}},"$ref":"#/$defs/a"})",
                 ErrorCode::kUnsupported, "$.$defs.a: the keyword 'format'");
  expect_refusal(R"({"type":"object","additionalProperties":{"type":"null"}})",
                 ErrorCode::kUnsupported, "$.additionalProperties");
}

TEST(JsonSchema, MalformedSchemasAreRefused) {
  constexpr ErrorCode kInvalid = ErrorCode::kInvalidArgument;
  expect_refusal("{", kInvalid, "json_schema is not valid JSON");
  expect_refusal("[]", kInvalid, "$: a schema is an object or true");
  expect_refusal("false", kInvalid, "$: a schema is an object or true");
  expect_refusal(R"({"type":"strnig"})", kInvalid, "'strnig' is no type");
  expect_refusal(R"({"type":[]})", kInvalid, "$.type");
  expect_refusal(R"({"type":"array","minItems":-1})", kInvalid, "$.minItems");
  expect_refusal(R"({"type":"array","minItems":2.5})", kInvalid, "$.minItems");
  expect_refusal(R"({"type":"array","minItems":3,"maxItems":2})", kInvalid, "maxItems is less");
  expect_refusal(R"({"type":"object","properties":{},"required":["a"]})", kInvalid, "\"a\" is not");
  expect_refusal(R"({"enum":[]})", kInvalid, "no value is left");
  expect_refusal(R"({"type":"string","enum":[1]})", kInvalid, "no value is left");
  expect_refusal(R"({"anyOf":[]})", kInvalid, "$.anyOf");
  expect_refusal(R"({"$ref":"#/$defs/a"})", kInvalid, "there is no '#/$defs/a'");
  expect_refusal(R"({"$ref":"http://example.com"})", kInvalid, "there is no 'http");
}

TEST(JsonSchema, WhatHasNoFiniteAnswerIsRefused) {
  expect_refusal(R"({"$ref":"#"})", ErrorCode::kInvalidArgument, "no finite answer");
  expect_refusal(R"({"type":"object","properties":{"next":{"$ref":"#"}},"required":["next"]})",
                 ErrorCode::kInvalidArgument, "no finite answer");
}

TEST(JsonSchema, SizesAreBounded) {
  expect_refusal(std::string(kMaxSchemaBytes + 1, ' '), ErrorCode::kResourceExhausted, "bytes");
  expect_refusal(R"({"type":"string","maxLength":10001})", ErrorCode::kResourceExhausted, "10000");
  std::string many = R"({"type":"object","properties":{)";
  for (int i = 0; i < 200; ++i) {
    many += (i == 0 ? "\"" : ",\"") + std::to_string(i) + R"(":{"type":"string","maxLength":9999})";
  }
  expect_refusal(many + "}}", ErrorCode::kResourceExhausted, "too large");
  std::string defs = R"("0":{"const":1})";
  for (int i = 1; i < 70; ++i) {
    defs += ",\"" + std::to_string(i) +
            R"(":{"type":"array","minItems":2,"items":{"$ref":"#/$defs/)" + std::to_string(i - 1) +
            "\"}}";
  }
  expect_refusal(R"({"$defs":{)" + defs + R"(},"$ref":"#/$defs/69"})",
                 ErrorCode::kResourceExhausted, "too deep");
}

}  // namespace
}  // namespace fovea::skills
