#include "access.h"

#include "service_fixture.h"

namespace fovea::server {
namespace {

using testing::ServiceTest;

TEST_F(ServiceTest, Key_IsTakenFromEitherHeaderOnEveryRoute) {
  options.api_keys = {"first", "second"};
  HttpRequest request{.method = "GET", .path = "/v1/models"};
  EXPECT_EQ(send(request)->whole->status, 401);
  request.moondream_auth = "second";
  EXPECT_EQ(send(request)->whole->status, 200);
  request.moondream_auth = "";
  request.authorization = "Bearer first";
  EXPECT_EQ(send(request)->whole->status, 200);
  request.authorization = "bearer  first";
  EXPECT_EQ(send(request)->whole->status, 200);
  for (const char* wrong : {"Bearer firs", "Bearer first2", "Basic first", "first", "Bearer "}) {
    request.authorization = wrong;
    const auto answer = send(request);
    EXPECT_EQ(answer->whole->status, 401) << wrong;
    EXPECT_EQ(error_code(*answer), "invalid_api_key");
  }
  request.path = "/v1/secret";
  EXPECT_EQ(send(request)->whole->status, 401);
  EXPECT_EQ(get("/health")->whole->status, 200);
  EXPECT_EQ(get("/")->whole->status, 200);
}

TEST_F(ServiceTest, WithoutKeys_WhateverArrivesIsIgnored) {
  EXPECT_EQ(send({.method = "GET", .path = "/v1/models", .moondream_auth = "dummy"})->whole->status,
            200);
}

TEST_F(ServiceTest, ForeignHost_IsRefusedOnLoopbackWithoutAKey) {
  const auto status = [this](const std::string& host) {
    return send({.method = "GET", .path = "/v1/models", .host = host})->whole->status;
  };
  EXPECT_EQ(status("localhost:2020"), 200);
  EXPECT_EQ(status("127.0.0.1"), 200);
  EXPECT_EQ(status("[::1]:2020"), 200);
  EXPECT_EQ(status("attacker.example:2020"), 403);
}

TEST_F(ServiceTest, ForeignOrigin_IsRefusedUntilItIsAllowed) {
  options.cors_origins = {"https://friend.example"};
  HttpRequest request{.method = "POST", .path = "/v1/query", .body = R"({"question":"?"})"};
  request.host = "localhost:2020";
  request.origin = "https://enemy.example";
  EXPECT_EQ(send(request)->whole->status, 403);
  request.origin = "http://localhost:2020";
  EXPECT_EQ(send(request)->whole->status, 200);
  request.origin = "https://friend.example";
  EXPECT_EQ(send(request)->whole->status, 200);
  HttpResponse response;
  service().finish_head(request, response);
  EXPECT_THAT(response.headers, ::testing::Contains(std::pair<std::string, std::string>(
                                    "Access-Control-Allow-Origin", "https://friend.example")));
}

TEST_F(ServiceTest, Options_AreAnsweredWith204) {
  options.cors_origins = {"*"};
  HttpRequest request{.method = "OPTIONS", .path = "/v1/query", .origin = "https://a.example"};
  request.access_control_request_method = "POST";
  const auto answer = send(request);
  EXPECT_EQ(answer->whole->status, 204);
  HttpResponse response;
  service().finish_head(request, response);
  EXPECT_THAT(response.headers,
              ::testing::Contains(::testing::Pair("Access-Control-Allow-Headers",
                                                  ::testing::HasSubstr("X-Moondream-Auth"))));
}

}  // namespace
}  // namespace fovea::server
