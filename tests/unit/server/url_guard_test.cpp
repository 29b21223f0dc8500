#include "url_guard.h"

#include <gtest/gtest.h>

namespace fovea::server {
namespace {

TEST(ParseUrl, TakesUrlsApart) {
  const auto url = parse_url("HTTPS://Example.ORG:8443/a/b.png?x=1#y");
  ASSERT_TRUE(url);
  EXPECT_TRUE(url->is_https);
  EXPECT_EQ(url->host, "example.org");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->target, "/a/b.png?x=1");
  EXPECT_EQ(parse_url("http://a?x")->target, "/?x");
  EXPECT_EQ(parse_url("http://[::1]:80/")->host, "::1");
}

TEST(ParseUrl, RefusesWhatCouldMeanTwoThings) {
  for (const char* text :
       {"http://user@host/", "http://good.example@evil.example/", "http://good.example\\@evil/",
        "http://host:0/", "http://host:99999/", "http://ho st/", "http://host/\r\nX: y",
        "ftp://host/", "file:///etc/passwd", "http://", "http:///x", "http://[::1/",
        "http://host:80x/", "http"}) {
    EXPECT_FALSE(parse_url(text)) << text;
  }
}

TEST(AllowList, MeansHostsAndPorts) {
  const std::vector<std::string> allowed = {"example.org", "*.cdn.example", "cam.local:8080"};
  const auto is_allowed = [&allowed](const char* text) {
    return is_allowed_host(allowed, *parse_url(text));
  };
  EXPECT_TRUE(is_allowed("http://example.org/a"));
  EXPECT_TRUE(is_allowed("https://EXAMPLE.org/a"));
  EXPECT_TRUE(is_allowed("http://a.cdn.example/"));
  EXPECT_TRUE(is_allowed("http://cam.local:8080/"));
  EXPECT_FALSE(is_allowed("http://cam.local/"));
  EXPECT_FALSE(is_allowed("http://example.org:8080/"));
  EXPECT_FALSE(is_allowed("http://cdn.example/"));
  EXPECT_FALSE(is_allowed("http://evilexample.org/"));
  EXPECT_FALSE(is_allowed("http://example.org.evil.example/"));
}

TEST(PublicAddress, ExcludesEverythingThatIsNot) {
  const auto is_public = [](const char* text) {
    return is_public_address(boost::asio::ip::make_address(text));
  };
  for (const char* address : {"127.0.0.1",
                              "0.0.0.0",
                              "10.1.2.3",
                              "100.64.0.1",
                              "169.254.169.254",
                              "172.16.0.1",
                              "172.31.255.255",
                              "192.168.1.1",
                              "198.18.0.1",
                              "224.0.0.1",
                              "240.0.0.1",
                              "255.255.255.255",
                              "::1",
                              "::",
                              "fe80::1",
                              "fc00::1",
                              "fd12::1",
                              "ff02::1",
                              "::ffff:127.0.0.1",
                              "::ffff:192.168.0.1",
                              "64:ff9b::7f00:1",
                              "2002:7f00:1::",
                              "2001::1",
                              "2001:db8::1"}) {
    EXPECT_FALSE(is_public(address)) << address;
  }
  for (const char* address : {"1.1.1.1", "172.32.0.1", "100.128.0.1", "8.8.8.8",
                              "2606:4700:4700::1111", "::ffff:8.8.8.8"}) {
    EXPECT_TRUE(is_public(address)) << address;
  }
}

}  // namespace
}  // namespace fovea::server
