#include "wire/coco_json.h"

#include <boost/json.hpp>
#include <gmock/gmock.h>

namespace fovea::wire {
namespace {

namespace json = boost::json;

TEST(Coco, BoxesArePixelsAndIdsCountFromOne) {
  CocoWriter coco({"red \"car\"", "dog"});
  const std::vector<CocoFindings> findings = {
      {0, {}}, {1, {{.x_min = 0.25, .y_min = 0.5, .x_max = 0.75, .y_max = 1, .confidence = 0.5}}}};
  coco.add_image("a.jpg", 10, 10, {});
  coco.add_image("sub/b.jpg", 400, 200, findings);

  const json::value set = json::parse(coco.finish("fovea"));

  EXPECT_EQ(set.at("images").as_array().size(), 2U);
  EXPECT_EQ(set.at("images").at(1).at("id").as_int64(), 2);
  EXPECT_EQ(set.at("images").at(1).at("file_name").as_string(), "sub/b.jpg");
  ASSERT_EQ(set.at("annotations").as_array().size(), 1U);
  const json::value& found = set.at("annotations").at(0);
  EXPECT_EQ(found.at("image_id").as_int64(), 2);
  EXPECT_EQ(found.at("category_id").as_int64(), 2);
  EXPECT_EQ(found.at("bbox"), json::parse("[100.0,100.0,200.0,100.0]"));
  EXPECT_EQ(found.at("area").as_double(), 20000);
  EXPECT_EQ(set.at("categories").at(0).at("name").as_string(), "red \"car\"");
}

TEST(Coco, BoxesEndAtTheEdges) {
  CocoWriter coco({"x"});
  const std::vector<CocoFindings> findings = {
      {0, {{.x_min = -0.5, .y_min = 0, .x_max = 1.5, .y_max = 1, .confidence = 1}}}};
  coco.add_image("a.jpg", 100, 50, findings);

  const json::value set = json::parse(coco.finish("fovea"));

  EXPECT_EQ(set.at("annotations").at(0).at("bbox"), json::parse("[0.0,0.0,100.0,50.0]"));
}

TEST(Coco, NothingIsStillADataSet) {
  const json::value set = json::parse(CocoWriter({"x"}).finish("fovea"));

  EXPECT_TRUE(set.at("images").as_array().empty());
  EXPECT_TRUE(set.at("annotations").as_array().empty());
}

}  // namespace
}  // namespace fovea::wire
