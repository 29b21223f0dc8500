#include "image/crops.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "image/identity.h"
#include "image/resize.h"
#include "picture_files.h"

namespace fovea {
namespace {

using test::noise_image;
using testing::HasSubstr;

// The table of specification 3.3, height first.
TEST(Tiling, EqualsTheTableOfTheSpecification) {
  struct Row {
    int height, width;
    Tiling tiling;
  };
  const Row rows[] = {
      {100, 100, {1, 1}},
      {378, 378, {1, 1}},
      {378, 1000, {1, 1}},
      {379, 379, {3, 3}},
      {512, 512, {3, 3}},
      {644, 644, {3, 3}},
      {1000, 1000, {3, 3}},
      {480, 640, {2, 4}},
      {600, 800, {2, 4}},
      {600, 850, {2, 4}},
      {720, 1280, {2, 4}},
      {1080, 1920, {2, 4}},
      {2000, 3000, {2, 4}},
      {3000, 4000, {2, 4}},
      {768, 1024, {3, 4}},
      {1024, 768, {4, 3}},
      {1920, 1080, {4, 2}},
      {500, 2000, {1, 6}},
      {400, 4000, {1, 9}},
      {4000, 400, {9, 1}},
      // More than max_crops tiles: one factor is raised to 1, the other keeps its value.
      {400, 20000, {1, 21}},
      {644, 7561, {1, 13}},
      {910, 11285, {1, 13}},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(choose_tiling(row.height, row.width, {}), row.tiling)
        << row.height << "x" << row.width;
  }
}

TEST(Crops, LayOutTheGlobalPictureThenTheTilesRowByRow) {
  ThreadPool pool(2);
  const Image image = noise_image(700, 500);
  const auto crops = make_crops(image, {}, pool);
  ASSERT_TRUE(crops.ok());
  ASSERT_EQ(crops->tiling, (Tiling{2, 4}));
  ASSERT_EQ(crops->num_crops(), 9);
  const std::size_t row_bytes = 3 * 378, crop_bytes = row_bytes * 378;
  ASSERT_EQ(crops->pixels.size(), 9 * crop_bytes);
  const Image global = resize_lanczos(image, 378, 378, pool);
  EXPECT_TRUE(std::equal(global.rgb.begin(), global.rgb.end(), crops->pixels.begin()));
  const Image local = resize_lanczos(image, 1176, 644, pool);
  for (std::size_t i = 0; i < 2; ++i) {
    for (std::size_t j = 0; j < 4; ++j) {
      for (std::size_t y = 0; y < 378; ++y) {
        const auto from =
            local.rgb.begin() + static_cast<std::ptrdiff_t>(3 * ((266 * i + y) * 1176 + 266 * j));
        const auto to = crops->pixels.begin() +
                        static_cast<std::ptrdiff_t>((1 + 4 * i + j) * crop_bytes + y * row_bytes);
        ASSERT_TRUE(std::equal(from, from + static_cast<std::ptrdiff_t>(row_bytes), to))
            << i << " " << j << " " << y;
      }
    }
  }
}

TEST(Crops, OneTileIsStoredOnce) {
  ThreadPool pool(1);
  const auto crops = make_crops(noise_image(200, 100), {}, pool);
  ASSERT_TRUE(crops.ok());
  EXPECT_EQ(crops->num_crops(), 1);
  EXPECT_EQ(crops->pixels.size(), std::size_t{378} * 378 * 3);
}

TEST(Crops, FollowAnotherGeometry) {
  ThreadPool pool(1);
  const CropGeometry geometry{
      .crop_size = 56, .patch_size = 7, .overlap_margin = 1, .max_crops = 4};
  const auto crops = make_crops(noise_image(120, 110), geometry, pool);
  ASSERT_TRUE(crops.ok());
  // Margins 14, window 42: 96x106 needs 3x3 > 4 tiles, which shrink to 2x2.
  EXPECT_EQ(crops->tiling, (Tiling{2, 2}));
  EXPECT_EQ(crops->crop_size, 56);
  EXPECT_EQ(crops->pixels.size(), std::size_t{5} * 56 * 56 * 3);
}

TEST(Crops, RefuseAnAbsurdNumberOfTiles) {
  ThreadPool pool(1);
  const CropGeometry small{.crop_size = 56, .patch_size = 7, .overlap_margin = 1, .max_crops = 12};
  const auto most = make_crops(noise_image(28'000, 70), small, pool);
  ASSERT_TRUE(most.ok());
  EXPECT_EQ(most->tiling, (Tiling{1, 63}));
  const auto more = make_crops(noise_image(29'800, 70), small, pool);
  ASSERT_FALSE(more.ok());
  EXPECT_EQ(more.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(more.error().message, HasSubstr("picture 29800x70 needs 1x65 tiles"));
}

TEST(Crops, RefuseGeometriesThatDoNotWork) {
  ThreadPool pool(1);
  const Image image = noise_image(10, 10);
  for (const CropGeometry& geometry :
       {CropGeometry{0, 14, 4, 12}, CropGeometry{378, 0, 4, 12}, CropGeometry{378, 13, 4, 12},
        CropGeometry{112, 14, 4, 12}, CropGeometry{378, 14, -1, 12}, CropGeometry{378, 14, 4, 0},
        CropGeometry{1 << 20, 1 << 10, 4, 12}, CropGeometry{378, 14, 1 << 30, 12}}) {
    const auto crops = make_crops(image, geometry, pool);
    ASSERT_FALSE(crops.ok());
    EXPECT_THAT(crops.error().message, HasSubstr("crop geometry"));
  }
  EXPECT_FALSE(make_crops(Image{}, {}, pool).ok());
}

TEST(Identity, DependsOnPixelsShapeAndPlan) {
  const Image image = noise_image(60, 40);
  const ImageIdentity identity = image_identity(image, {});
  EXPECT_EQ(identity, image_identity(noise_image(60, 40), {}));
  EXPECT_NE(identity, image_identity(Image{40, 60, image.rgb}, {}));
  Image changed = image;
  changed.rgb.back() ^= 1;
  EXPECT_NE(identity, image_identity(changed, {}));
  EXPECT_NE(identity, image_identity(image, CropGeometry{.crop_size = 392}));
}

}  // namespace
}  // namespace fovea
