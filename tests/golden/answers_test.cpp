// Every golden answer through the public API: ids and texts exactly, boxes and points to 1e-6.

#include <gtest/gtest.h>
#include <map>

#include "fovea/engine.h"

#include "golden/golden_case.h"
#include "support/must.h"

namespace fovea {
namespace {

using golden::kData;

Engine& engine_for(const std::string& folder, Precision precision) {
  static std::map<std::pair<std::string, Precision>, std::unique_ptr<Engine>> engines;
  auto& engine = engines[{folder, precision}];
  if (!engine) {
    EngineOptions options;
    options.kv_cache_bytes = std::size_t{128} << 20;  // several engines share the device
    options.model = kData / folder;
    options.device = golden::device_name();
    options.precision = precision;
    options.compatibility.clamp_boxes =
        !folder.starts_with("md2");  // the official code does not clamp
    engine = testing_support::must(Engine::create(options));
  }
  return *engine;
}

std::vector<SpatialRef> read_spatial_refs(const json::object& golden) {
  std::vector<SpatialRef> refs;
  if (const auto* list = golden.if_contains("spatial_refs"); list != nullptr && list->is_array()) {
    for (const json::value& ref : list->get_array()) {
      std::vector<float> values;
      for (const json::value& value : ref.as_array()) values.push_back(value.to_number<float>());
      if (values.size() == 2) {
        refs.emplace_back(std::array<float, 2>{values[0], values[1]});
      } else {
        refs.emplace_back(std::array<float, 4>{values[0], values[1], values[2], values[3]});
      }
    }
  }
  return refs;
}

Request make_request(const json::object& golden,
                     const std::optional<std::filesystem::path>& image) {
  Request request;
  if (image) request.picture = golden::read_bytes(*image);
  request.sampling.temperature = 0;
  std::optional<int> max_objects;
  if (const auto* settings = golden.if_contains("settings"); settings != nullptr) {
    const json::object& object = settings->as_object();
    if (const auto* value = object.if_contains("max_tokens"))
      request.sampling.max_tokens = value->to_number<int>();
    if (const auto* value = object.if_contains("max_objects"))
      max_objects = value->to_number<int>();
  }
  const std::string skill(golden.at("skill").as_string());
  if (skill == "caption") {
    const std::string length(golden.at("length").as_string());
    request.skill = CaptionRequest{length == "short"  ? CaptionLength::kShort
                                   : length == "long" ? CaptionLength::kLong
                                                      : CaptionLength::kNormal};
  } else if (skill == "query") {
    const auto* reasoning = golden.if_contains("reasoning");
    request.skill =
        QueryRequest{std::string(golden.at("question").as_string()),
                     reasoning != nullptr && reasoning->is_bool() && reasoning->get_bool(),
                     read_spatial_refs(golden)};
  } else if (skill == "detect") {
    request.skill = DetectRequest{std::string(golden.at("object").as_string()), max_objects};
  } else {
    EXPECT_EQ(skill, "point");
    request.skill = PointRequest{std::string(golden.at("object").as_string()), max_objects,
                                 read_spatial_refs(golden)};
  }
  return request;
}

void expect_numbers(const json::object& golden,
                    std::initializer_list<std::pair<const char*, double>> actual) {
  for (const auto& [name, value] : actual)
    EXPECT_NEAR(value, golden.at(name).to_number<double>(), 1e-6) << name;
}

void expect_answer(const json::object& golden, const Response& response) {
  if (const auto* ids = golden.if_contains("output_ids")) {
    std::vector<std::int32_t> expected;
    for (const json::value& id : ids->as_array()) expected.push_back(id.to_number<std::int32_t>());
    EXPECT_EQ(expected, response.token_ids);
  }
  for (const char* field : {"text", "answer"}) {
    if (const auto* text = golden.if_contains(field)) {
      EXPECT_EQ(text->as_string(), response.text);
    }
  }
  if (const auto* objects = golden.if_contains("objects")) {
    ASSERT_EQ(objects->as_array().size(), response.boxes.size());
    for (std::size_t i = 0; i < response.boxes.size(); ++i) {
      const Box& box = response.boxes[i];
      expect_numbers(
          objects->as_array()[i].as_object(),
          {{"x_min", box.x_min}, {"y_min", box.y_min}, {"x_max", box.x_max}, {"y_max", box.y_max}});
      EXPECT_GT(box.confidence, 0);
      EXPECT_LE(box.confidence, 1 + 1e-6);
    }
  }
  if (const auto* points = golden.if_contains("points")) {
    ASSERT_EQ(points->as_array().size(), response.points.size());
    for (std::size_t i = 0; i < response.points.size(); ++i) {
      expect_numbers(points->as_array()[i].as_object(),
                     {{"x", response.points[i].x}, {"y", response.points[i].y}});
    }
  }
  const auto* reasoning = golden.if_contains("reasoning_output");
  if (reasoning == nullptr || reasoning->is_null()) return;
  ASSERT_TRUE(response.reasoning.has_value());
  EXPECT_EQ(reasoning->at("text").as_string(), response.reasoning->text);
  const json::array& grounding = reasoning->at("grounding").as_array();
  ASSERT_EQ(grounding.size(), response.reasoning->grounding.size());
  for (std::size_t i = 0; i < grounding.size(); ++i) {
    const Grounding& actual = response.reasoning->grounding[i];
    EXPECT_EQ(grounding[i].at("start_idx").to_number<int>(), actual.start_idx);
    EXPECT_EQ(grounding[i].at("end_idx").to_number<int>(), actual.end_idx);
    const json::array& points = grounding[i].at("points").as_array();
    ASSERT_EQ(points.size(), actual.points.size());
    for (std::size_t p = 0; p < points.size(); ++p) {
      EXPECT_NEAR(points[p].as_array()[0].to_number<double>(), actual.points[p].x, 1e-6);
      EXPECT_NEAR(points[p].as_array()[1].to_number<double>(), actual.points[p].y, 1e-6);
    }
  }
}

struct GoldenCase {
  std::string folder;
  std::string image;  // empty: none
  json::object skill;
};

std::vector<GoldenCase> all_cases() {
  std::vector<GoldenCase> cases;
  for (const char* folder : {"md2-mha", "md2-gqa", "md3", "md3-reason"}) {
    for (const json::value& entry : golden::read_cases(folder)) {
      const json::value& image = entry.at("image");
      for (const json::value& skill : entry.at("skills").as_array()) {
        cases.push_back(
            {folder, image.is_null() ? "" : std::string(image.as_string()), skill.as_object()});
      }
    }
  }
  return cases;
}

std::string case_name(const testing::TestParamInfo<GoldenCase>& info) {
  std::string name = info.param.folder + "_" + info.param.image + "_" +
                     std::string(info.param.skill.at("skill").as_string());
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name + "_" + std::to_string(info.index);
}

class GoldenAnswer : public testing::TestWithParam<GoldenCase> {};

TEST_P(GoldenAnswer, MatchesInF32) {
  const GoldenCase& golden = GetParam();
  SCOPED_TRACE(boost::json::serialize(golden.skill));
  std::optional<std::filesystem::path> image;
  if (!golden.image.empty()) image = kData / golden.folder / golden.image;
  std::string streamed;
  const auto response = engine_for(golden.folder, Precision::kF32)
                            .run(make_request(golden.skill, image), [&](std::string_view text) {
                              streamed += text;
                              return true;
                            });
  ASSERT_TRUE(response.ok()) << response.error().message;
  expect_answer(golden.skill, *response);
  EXPECT_EQ(streamed, response->text);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenAnswer, testing::ValuesIn(all_cases()), case_name);

}  // namespace
}  // namespace fovea
