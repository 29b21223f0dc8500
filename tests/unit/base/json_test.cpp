#include "base/json.h"

#include <gtest/gtest.h>

namespace fovea {
namespace {

TEST(Json, ParsesAnObject) {
  const auto value = json::parse(R"({"a": [1, 2.5, "x"]})", "test");
  ASSERT_TRUE(value.ok()) << value.error().message;
  EXPECT_EQ(value->as_object().at("a").as_array().size(), 3u);
}

TEST(Json, NamesTheSourceAndThePlaceOfAMistake) {
  const auto value = json::parse(R"({"a": })", "config.json");
  ASSERT_FALSE(value.ok());
  EXPECT_NE(value.error().message.find("config.json"), std::string::npos);
  EXPECT_NE(value.error().message.find("byte"), std::string::npos);
}

TEST(Json, RefusesTrailingBytes) { EXPECT_FALSE(json::parse("{} x", "test").ok()); }

TEST(Json, RefusesAnUnfinishedDocument) { EXPECT_FALSE(json::parse(R"({"a": [1)", "test").ok()); }

TEST(Json, RefusesDeepNesting) {
  EXPECT_FALSE(json::parse(std::string(100, '[') + std::string(100, ']'), "test").ok());
}

TEST(Json, RefusesInvalidUtf8) { EXPECT_FALSE(json::parse("\"\xff\"", "test").ok()); }

}  // namespace
}  // namespace fovea
