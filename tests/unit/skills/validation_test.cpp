#include "skills/validation.h"

#include <cmath>
#include <gtest/gtest.h>

#include "support/skill_fixture.h"

namespace fovea {
namespace {

class Validation : public testing_support::SkillFixture {
 protected:
  // The message of a request that must be refused.
  std::string refusal(Request request, bool with_picture = true) {
    const auto state = make(std::move(request), with_picture);
    if (state.ok()) return "accepted";
    return state.error().message;
  }
  static Request with_sampling(auto&& change) {
    Request request{.skill = CaptionRequest{}};
    change(request.sampling);
    return request;
  }
};

void expect_names(const std::string& message, std::string_view what) {
  EXPECT_NE(message.find(what), std::string::npos) << message;
}

TEST_F(Validation, SamplingRanges) {
  expect_names(refusal(with_sampling([](auto& s) { s.temperature = -0.1f; })), "temperature");
  expect_names(refusal(with_sampling([](auto& s) { s.temperature = NAN; })), "temperature");
  expect_names(refusal(with_sampling([](auto& s) { s.temperature = INFINITY; })), "temperature");
  expect_names(refusal(with_sampling([](auto& s) { s.top_p = 0.0f; })), "top_p");
  expect_names(refusal(with_sampling([](auto& s) { s.top_p = 1.5f; })), "top_p");
  expect_names(refusal(with_sampling([](auto& s) { s.top_k = -1; })), "top_k");
  expect_names(refusal(with_sampling([](auto& s) { s.min_p = 1.0f; })), "min_p");
  expect_names(refusal(with_sampling([](auto& s) { s.max_tokens = 0; })), "max_tokens");
  expect_names(refusal(with_sampling([](auto& s) { s.stop = {""}; })), "stop string");
  expect_names(refusal(with_sampling([](auto& s) { s.stop.assign(17, "x"); })), "at most 16");
  EXPECT_EQ(refusal(with_sampling([](auto& s) { s.temperature = 0; })), "accepted");
}

TEST_F(Validation, EmptyAndHugeTexts) {
  expect_names(refusal({.skill = QueryRequest{" \t\n", {}, {}}}), "question is empty");
  expect_names(refusal({.skill = DetectRequest{"", {}}}), "object is empty");
  expect_names(refusal({.skill = PointRequest{std::string(100'001, 'a'), {}, {}}}),
               "at most 100000");
}

TEST_F(Validation, APictureIsNeededButForAQuery) {
  expect_names(refusal({.skill = CaptionRequest{}}, false), "caption needs a picture");
  expect_names(refusal({.skill = DetectRequest{"a", {}}}, false), "detect needs a picture");
  expect_names(refusal({.skill = PointRequest{"a", {}, {}}}, false), "point needs a picture");
  EXPECT_EQ(refusal({.skill = QueryRequest{"a", {}, {}}}, false), "accepted");
}

TEST_F(Validation, MaxObjects) {
  expect_names(refusal({.skill = DetectRequest{"a", 0}}), "max_objects 0");
  expect_names(refusal({.skill = PointRequest{"a", 10'001, {}}}), "10000");
}

TEST_F(Validation, SpatialReferences) {
  const auto query = [](SpatialRef ref) { return Request{.skill = QueryRequest{"a", {}, {ref}}}; };
  expect_names(refusal(query(std::array<float, 2>{1.5f, 0.0f})), "1.5");
  expect_names(refusal(query(std::array<float, 2>{NAN, 0.0f})), "0..1");
  expect_names(refusal(query(std::array<float, 4>{0.5f, 0.0f, 0.25f, 1.0f})), "wrong order");
  expect_names(refusal(query(std::array<float, 2>{0.5f, 0.5f}), false), "picture");
  const std::vector<SpatialRef> many(65, std::array<float, 2>{0.5f, 0.5f});
  expect_names(refusal({.skill = QueryRequest{"a", {}, many}}), "at most 64");
}

}  // namespace
}  // namespace fovea
