#include "image/annotate.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <set>

#include "image/decode.h"
#include "image/encode_png.h"
#include "image/font.h"
#include "picture_files.h"

namespace fovea {
namespace {

Image grey_image(int width, int height) {
  Image image{width, height, {}};
  image.rgb.assign(3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height), 100);
  return image;
}

std::array<int, 3> pixel(const Image& image, int x, int y) {
  const auto offset = static_cast<std::size_t>(3 * (y * image.width + x));
  return {image.rgb[offset], image.rgb[offset + 1], image.rgb[offset + 2]};
}

constexpr std::array<int, 3> kGrey = {100, 100, 100};

TEST(Annotate, DrawsTheBorderOfABoxAndLeavesItsInside) {
  Image image = grey_image(200, 100);
  annotate(image, std::vector<BoxMark>{{0.25, 0.2, 0.75, 0.8, ""}}, {});
  const auto color = pixel(image, 50, 50);
  EXPECT_NE(color, kGrey);
  EXPECT_EQ(pixel(image, 149, 50), color);
  EXPECT_EQ(pixel(image, 100, 20), color);
  EXPECT_EQ(pixel(image, 100, 79), color);
  EXPECT_EQ(pixel(image, 100, 50), kGrey);
  EXPECT_EQ(pixel(image, 10, 50), kGrey);
}

TEST(Annotate, SameLabelSameColorOtherLabelOtherColor) {
  Image image = grey_image(400, 400);
  annotate(
      image,
      std::vector<BoxMark>{
          {0.1, 0.1, 0.3, 0.3, "cat"}, {0.4, 0.1, 0.6, 0.3, "cat"}, {0.7, 0.1, 0.9, 0.3, "dog"}},
      {});
  EXPECT_EQ(pixel(image, 40, 100), pixel(image, 160, 100));
  EXPECT_NE(pixel(image, 40, 100), pixel(image, 280, 100));
}

TEST(Annotate, ManyLabelsGetManyColors) {
  std::set<std::array<int, 3>> colors;
  for (int count = 0; count < 24; ++count) {
    Image image = grey_image(50, 50);
    std::vector<PointMark> points(static_cast<std::size_t>(count), PointMark{-0.9, -0.9, ""});
    points.push_back({0.5, 0.5, ""});
    annotate(image, {}, points);
    colors.insert(pixel(image, 25, 25));
  }
  EXPECT_EQ(colors.size(), 24u);
}

TEST(Annotate, LabelStaysInsideThePicture) {
  for (const auto& [x, y] :
       std::vector<std::pair<double, double>>{{0, 0}, {1, 1}, {-0.5, 0.5}, {1.5, 1.5}, {0.99, 0}}) {
    Image image = grey_image(300, 200);
    const Image before = image;
    annotate(image, {}, std::vector<PointMark>{{x, y, "a label"}});
    Image without = before;
    annotate(without, {}, std::vector<PointMark>{{x, y, ""}});
    // A plate of this text covers about 45 x 14 pixels; all of them must be there.
    int changed = 0;
    for (std::size_t i = 0; i < image.rgb.size(); i += 3) {
      changed += !std::equal(image.rgb.begin() + static_cast<std::ptrdiff_t>(i),
                             image.rgb.begin() + static_cast<std::ptrdiff_t>(i) + 3,
                             without.rgb.begin() + static_cast<std::ptrdiff_t>(i));
    }
    EXPECT_GT(changed, 40 * 14 - 100) << x << "," << y;
  }
}

TEST(Annotate, OutsideAndBrokenCoordinatesAreHarmless) {
  const double infinity = std::numeric_limits<double>::infinity();
  Image image = grey_image(64, 48);
  const Image before = image;
  annotate(
      image,
      std::vector<BoxMark>{{NAN, 0, 1, 1, "x"}, {0, 0, infinity, 1, "x"}, {1.2, 1.2, 1.8, 1.9, ""}},
      std::vector<PointMark>{{NAN, 0.5, "x"}, {-infinity, 0, "x"}, {1.9, 1.9, ""}});
  EXPECT_EQ(image.rgb, before.rgb);
  annotate(image, std::vector<BoxMark>{{1e300, -1e300, -1e300, 1e300, std::string(1000, 'w')}},
           std::vector<PointMark>{{1e300, -1e300, "\xff\xfe broken"}});
  Image tiny = grey_image(1, 1);
  annotate(tiny, std::vector<BoxMark>{{0, 0, 1, 1, "label"}},
           std::vector<PointMark>{{0.5, 0.5, "label"}});
  EXPECT_EQ(tiny.rgb.size(), 3u);
}

TEST(Font, EveryPrintableAsciiCharacterHasItsOwnGlyph) {
  std::set<Glyph> glyphs;
  for (char32_t c = ' '; c <= '~'; ++c) glyphs.insert(glyph_of(c));
  EXPECT_EQ(glyphs.size(), 95u);
}

TEST(Font, Latin1LettersAreDrawnAndOthersFallBack) {
  std::set<Glyph> glyphs;
  for (char32_t c = 0xc0; c <= 0xff; ++c) {
    EXPECT_NE(glyph_of(c), glyph_of(U'?')) << static_cast<int>(c);
    glyphs.insert(glyph_of(c));
  }
  EXPECT_EQ(glyphs.size(), 64u);
  EXPECT_EQ(glyph_of(0x4e2d), glyph_of(U'?'));
}

TEST(Font, Utf8IsReadAndBrokenBytesAreReplaced) {
  EXPECT_EQ(characters_of("a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x90\xb1"), U"a\u00e9\u4e2d\U0001f431");
  EXPECT_EQ(characters_of("\xff"
                          "a\xc3"),
            U"\ufffda\ufffd");
}

TEST(EncodePng, DecodesToTheSamePicture) {
  for (const Image& image : {test::noise_image(1, 1), test::noise_image(37, 21)}) {
    const auto png = encode_png(image);
    ASSERT_TRUE(png.ok());
    const auto decoded = decode_image(*png, {});
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    EXPECT_EQ(decoded->width, image.width);
    EXPECT_EQ(decoded->rgb, image.rgb);
  }
  EXPECT_FALSE(encode_png(Image{}).ok());
}

}  // namespace
}  // namespace fovea
