// Every file of tests/golden/data/pictures, against the pixels and crops that Pillow made of it
// (pictures.json).
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <vector>

#include "image/crops.h"
#include "image/decode.h"
#include "picture_files.h"

namespace fovea {
namespace {

using test::read_picture;
using test::sha256_hex;

struct GoldenPicture {
  std::string file;
  int width, height;
  std::string rgb_sha256;
  Tiling tiling;
  std::string crops_sha256;
};

std::vector<GoldenPicture> golden_pictures() {
  const auto value = test::read_golden_json("pictures.json");
  std::vector<GoldenPicture> pictures;
  for (const auto& entry : value.as_array()) {
    const auto& object = entry.as_object();
    const auto integer = [&](const char* key) { return object.at(key).to_number<int>(); };
    const auto text = [&](const char* key) { return std::string(object.at(key).as_string()); };
    const auto& tiling = object.at("tiling").as_array();
    pictures.push_back({text("file"), integer("width"), integer("height"), text("rgb_sha256"),
                        Tiling{tiling[0].to_number<int>(), tiling[1].to_number<int>()},
                        text("crops_sha256")});
  }
  return pictures;
}

// The golden hash covers both crops of a 1x1 tiling; ours stores their common pixels once.
std::string hash_as_stored_twice(const Crops& crops) {
  std::vector<std::uint8_t> pixels = crops.pixels;
  if (crops.num_tiles() == 1) {
    pixels.insert(pixels.end(), crops.pixels.begin(), crops.pixels.end());
  }
  return sha256_hex(std::as_bytes(std::span(pixels)));
}

class GoldenPictures : public testing::TestWithParam<GoldenPicture> {};

TEST_P(GoldenPictures, DecodeAndCropLikePillow) {
  const GoldenPicture& golden = GetParam();
  const auto image = decode_image(read_picture(golden.file), {});
  ASSERT_TRUE(image.ok()) << image.error().message;
  EXPECT_EQ(image->width, golden.width);
  EXPECT_EQ(image->height, golden.height);
  EXPECT_EQ(test::rgb_sha256(*image), golden.rgb_sha256);
  for (const int num_threads : {1, 3}) {
    ThreadPool pool(num_threads);
    const auto crops = make_crops(*image, {}, pool);
    ASSERT_TRUE(crops.ok()) << crops.error().message;
    EXPECT_EQ(crops->tiling, golden.tiling);
    EXPECT_EQ(hash_as_stored_twice(*crops), golden.crops_sha256) << num_threads << " threads";
  }
}

std::string test_name(const testing::TestParamInfo<GoldenPicture>& info) {
  std::string name = info.param.file;
  for (char& c : name) {
    if (c == '.') c = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenPictures, testing::ValuesIn(golden_pictures()), test_name);

TEST(GoldenCheckpoints, PicturesAreCutAsByTheReference) {
  ThreadPool pool(1);
  for (const char* folder : {"md2-mha", "md2-gqa", "md3", "md3-reason"}) {
    const auto cases = test::read_golden_json(std::string("../") + folder + "/cases.json");
    for (const auto& entry : cases.as_array()) {
      const auto* golden = entry.as_object().if_contains("crops_sha256");
      if (golden == nullptr) continue;
      const std::string name(entry.at("image").as_string());
      const auto image = decode_image(read_picture(std::string("../") + folder + "/" + name), {});
      ASSERT_TRUE(image.ok()) << image.error().message;
      const auto crops = make_crops(*image, {}, pool);
      ASSERT_TRUE(crops.ok()) << crops.error().message;
      EXPECT_EQ(hash_as_stored_twice(*crops), std::string(golden->as_string())) << name;
    }
  }
}

TEST(Seeds, DecodeLikePillow) {
  const auto more = test::read_golden_json("more.json");
  for (const auto& [name, golden] : more.at("seeds").as_object()) {
    const auto bytes = test::read_bytes(FOVEA_TEST_DATA "/../../fuzz/corpus/" + std::string(name));
    const auto image = decode_image(bytes, {});
    ASSERT_TRUE(image.ok()) << name << ": " << image.error().message;
    EXPECT_EQ(image->width, golden.at("size").at(0).to_number<int>()) << name;
    EXPECT_EQ(image->height, golden.at("size").at(1).to_number<int>()) << name;
    EXPECT_EQ(test::rgb_sha256(*image), std::string(golden.at("sha256").as_string())) << name;
  }
}

// more.json lists the lengths at which Pillow still gives a picture; at all others it refuses.
TEST(TruncatedPictures, AreAcceptedAndRefusedAsByPillow) {
  const auto more = test::read_golden_json("more.json");
  for (const auto& [name, accepted] : more.at("truncations").as_object()) {
    const test::Bytes bytes = read_picture(std::string(name));
    std::map<std::size_t, std::string> golden;
    for (const auto& entry : accepted.as_array()) {
      golden[entry.at("length").to_number<std::size_t>()] =
          std::string(entry.at("sha256").as_string());
    }
    for (std::size_t length = 0; length < bytes.size(); length += 97) {
      const auto image = decode_image(std::span(bytes).first(length), {});
      const auto wanted = golden.find(length);
      ASSERT_EQ(image.ok(), wanted != golden.end()) << name << " cut at " << length;
      if (image.ok()) {
        EXPECT_EQ(test::rgb_sha256(*image), wanted->second) << name << " " << length;
      } else {
        EXPECT_FALSE(image.error().message.empty());
      }
    }
  }
}

TEST(GoldenPictureList, IsComplete) { EXPECT_EQ(golden_pictures().size(), 22u); }

}  // namespace
}  // namespace fovea
