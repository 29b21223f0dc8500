#include "router.h"

#include <gtest/gtest.h>

namespace fovea::server {
namespace {

TEST(NormalisePath, CollapsesSlashesAndDropsQueryAndHost) {
  EXPECT_EQ(normalise_path("/v1//caption/?a=/b"), "/v1/caption");
  EXPECT_EQ(normalise_path("/"), "/");
  EXPECT_EQ(normalise_path("///"), "/");
  EXPECT_EQ(normalise_path("http://host:1/v1/models"), "/v1/models");
  EXPECT_EQ(normalise_path("http://host"), "/");
  EXPECT_EQ(normalise_path("*"), "*");
  EXPECT_EQ(normalise_path(""), "");
}

TEST(Router, FindsExactPathsBeforeWildcards) {
  Router router;
  router.add("GET", "/models", {.handle = {}, .name = "list"});
  router.add("GET", "/models/*", {.handle = {}, .name = "one"});
  const auto name_of = [&router](const std::string& method, const std::string& path) {
    std::string allow;
    const auto found = router.find({.method = method, .path = path}, &allow);
    const auto* route = std::get_if<const Route*>(&found);
    return route != nullptr ? (*route)->name
                            : std::to_string(std::get<ApiError>(found).status) + allow;
  };
  EXPECT_EQ(name_of("GET", "/models"), "list");
  EXPECT_EQ(name_of("HEAD", "/models"), "list");
  EXPECT_EQ(name_of("GET", "/models/a/b"), "one");
  EXPECT_EQ(name_of("POST", "/models"), "405GET");
  EXPECT_EQ(name_of("GET", "/other"), "404");
}

}  // namespace
}  // namespace fovea::server
