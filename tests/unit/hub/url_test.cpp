#include "hub/url.h"

#include <gtest/gtest.h>

namespace fovea::hub {
namespace {

Origin origin(const std::string& url) {
  const Result<Origin> parsed = origin_of(url);
  EXPECT_TRUE(parsed.ok()) << url;
  return parsed.ok() ? *parsed : Origin{};
}

TEST(Url, OriginIsSchemeHostAndPort) {
  EXPECT_EQ(origin("https://Hub.Example/a/b?c"), (Origin{"https", "hub.example", 443}));
  EXPECT_EQ(origin("http://hub.example:8080"), (Origin{"http", "hub.example", 8080}));
  EXPECT_NE(origin("https://hub.example:444/"), origin("https://hub.example/"));
  EXPECT_NE(origin("https://hub.example.evil/"), origin("https://hub.example/"));
}

TEST(Url, RefusesOtherSchemesUserNamesAndNonsense) {
  for (const char* url :
       {"file:///etc/passwd", "ftp://hub.example/", "https://", "https://user:secret@hub.example/",
        "https://hub.example@evil/", "", "https://hub.example:99999/"}) {
    EXPECT_FALSE(origin_of(url).ok()) << url;
  }
}

TEST(Url, RedirectsNeverLeaveHttps) {
  const Origin secure = origin("https://a.example/");
  const Origin plain = origin("http://a.example/");
  EXPECT_TRUE(check_redirect(secure, origin("https://b.example/")).ok());
  EXPECT_TRUE(check_redirect(plain, secure).ok());
  EXPECT_TRUE(check_redirect(plain, plain).ok());
  EXPECT_FALSE(check_redirect(secure, plain).ok());
}

TEST(Url, TokensTravelEncryptedOrStayOnThisMachine) {
  EXPECT_TRUE(check_token_is_safe(origin("https://hub.example/")).ok());
  EXPECT_TRUE(check_token_is_safe(origin("http://127.0.0.1:5000/")).ok());
  EXPECT_TRUE(check_token_is_safe(origin("http://localhost/")).ok());
  EXPECT_TRUE(check_token_is_safe(origin("http://[::1]:80/")).ok());
  EXPECT_FALSE(check_token_is_safe(origin("http://hub.example/")).ok());
  EXPECT_FALSE(check_token_is_safe(origin("http://127.evil.example/")).ok());
  EXPECT_FALSE(check_token_is_safe(origin("http://localhost.evil.example/")).ok());
}

TEST(Url, PercentEncodesWholeSegments) {
  EXPECT_EQ(percent_encode("refs/pr/1"), "refs%2Fpr%2F1");
  EXPECT_EQ(percent_encode("a-b._~9 ?#%"), "a-b._~9%20%3F%23%25");
}

}  // namespace
}  // namespace fovea::hub
