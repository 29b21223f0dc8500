#include "image/decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "picture_files.h"

namespace fovea {
namespace {

using test::Bytes;
using test::find_bytes;
using test::patch;
using test::read_picture;
using testing::HasSubstr;

Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

Error error_of(const Bytes& bytes, const DecodeOptions& options = {}) {
  const auto image = decode_image(bytes, options);
  EXPECT_FALSE(image.ok());
  return image.ok() ? Error{ErrorCode::kInternal, "was accepted"} : image.error();
}

TEST(Decode, EmptyFileIsNamedSo) {
  const Error error = error_of({});
  EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(error.message, HasSubstr("empty"));
}

TEST(Decode, TextFileIsRecognised) {
  const Error error = error_of(bytes_of("Dear reader,\nthis is not a picture.\n"));
  EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(error.message, HasSubstr("text"));
  EXPECT_THAT(error.message, HasSubstr("JPEG, PNG, WebP and GIF"));
}

TEST(Decode, UnknownFormatNamesItsFirstBytes) {
  const Error error = error_of(bytes_of(std::string_view("BM\x01\x02\x00\x00", 6)));
  EXPECT_THAT(error.message, HasSubstr("42 4d 01 02 00 00"));
  EXPECT_THAT(error.message, Not(HasSubstr("text")));
}

TEST(Decode, SignatureAloneIsRefused) {
  for (const std::string_view text :
       {"\xff\xd8\xff", "\x89PNG\r\n\x1a\n", "GIF89a", "RIFF1234WEBP"}) {
    EXPECT_EQ(error_of(bytes_of(text)).code, ErrorCode::kInvalidArgument) << text;
  }
}

TEST(Decode, TruncatedFilesSaySo) {
  for (const char* name :
       {"q95_420.jpg", "q80_422_prog.jpg", "palette.png", "q80.webp", "pal.gif"}) {
    Bytes bytes = read_picture(name);
    bytes.resize(bytes.size() / 2);
    EXPECT_THAT(error_of(bytes).message, HasSubstr("truncated")) << name;
  }
}

TEST(Decode, TooManyBytes) {
  const Bytes bytes = read_picture("one_pixel.png");
  DecodeOptions options;
  options.max_bytes = bytes.size() - 1;
  const Error error = error_of(bytes, options);
  EXPECT_EQ(error.code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(error.message, HasSubstr("picture of 69 bytes exceeds max_bytes 68"));
  options.max_bytes = bytes.size();
  EXPECT_TRUE(decode_image(bytes, options).ok());
}

TEST(Decode, TooManyPixelsInEveryFormat) {
  DecodeOptions options;
  options.max_pixels = 320 * 240 - 1;
  for (const char* name : {"q95_420.jpg", "palette.png", "q80.webp", "pal.gif"}) {
    const Bytes bytes = read_picture(name);
    const Error error = error_of(bytes, options);
    EXPECT_EQ(error.code, ErrorCode::kResourceExhausted);
    EXPECT_EQ(error.message, "picture 320x240 exceeds max_pixels 76799") << name;
  }
  options.max_pixels = 320 * 240;
  EXPECT_TRUE(decode_image(read_picture("q95_420.jpg"), options).ok());
}

// 64250 is 0xfafa. Refused from the header: decoding it would take 12 GB.
TEST(Decode, HeaderThatClaimsAHugeJpeg) {
  for (const char* name : {"q95_420.jpg", "q80_422_prog.jpg", "cmyk.jpg"}) {
    Bytes bytes = read_picture(name);
    const bool progressive = std::string_view(name) == "q80_422_prog.jpg";
    patch(bytes, find_bytes(bytes, progressive ? "\xff\xc2" : "\xff\xc0") + 5,
          {0xfa, 0xfa, 0xfa, 0xfa});
    EXPECT_EQ(error_of(bytes).message, "picture 64250x64250 exceeds max_pixels 100000000");
  }
}

TEST(Decode, HeaderThatClaimsAHugeGif) {
  Bytes bytes = read_picture("pal.gif");
  patch(bytes, 6, {0xfa, 0xfa, 0xfa, 0xfa});
  EXPECT_EQ(error_of(bytes).message, "picture 64250x64250 exceeds max_pixels 100000000");
}

// A PNG that ends where its pixels would begin; `checksum` is that of the header chunk.
Bytes png_header(std::uint32_t width, std::uint32_t height, std::uint32_t checksum) {
  Bytes bytes = bytes_of("\x89PNG\r\n\x1a\n");
  const auto append = [&](std::string_view text) {
    const Bytes more = bytes_of(text);
    bytes.insert(bytes.end(), more.begin(), more.end());
  };
  const auto append_number = [&](std::uint32_t number) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes.push_back(static_cast<std::byte>(number >> shift));
    }
  };
  append(std::string_view("\0\0\0\x0dIHDR", 8));
  append_number(width);
  append_number(height);
  append(std::string_view("\x08\x02\0\0\0", 5));
  append_number(checksum);
  append(std::string_view("\0\0\0\0IDAT\x35\xaf\x06\x1e", 12));
  return bytes;
}

TEST(Decode, HeaderThatClaimsAHugePng) {
  EXPECT_EQ(error_of(png_header(64250, 64250, 0xacec9715)).message,
            "picture 64250x64250 exceeds max_pixels 100000000");
}

TEST(Decode, ThinButEndlessPictureIsRefused) {
  EXPECT_EQ(error_of(png_header(50'000'000, 1, 0xde95e5b3)).message,
            "picture 50000000x1 exceeds the largest side 1000000");
}

TEST(Decode, TooManyProgressiveScans) {
  const Bytes bytes = read_picture("q80_422_prog.jpg");
  DecodeOptions options;
  options.max_progressive_scans = 10;
  EXPECT_TRUE(decode_image(bytes, options).ok());
  options.max_progressive_scans = 9;
  const Error error = error_of(bytes, options);
  EXPECT_EQ(error.code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(error.message, HasSubstr("max_progressive_scans 9"));
}

TEST(Decode, SixteenBitGreyIsClippedLikePillow) {
  const auto image =
      decode_image(test::read_bytes(FOVEA_TEST_DATA "/../../fuzz/corpus/png/grey16.png"), {});
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->rgb[0], 0);    // value 0
  EXPECT_EQ(image->rgb[3], 200);  // value 200
  EXPECT_EQ(image->rgb[6], 255);  // value 400
}

class ExifOrientation : public testing::TestWithParam<int> {};

// The same stored picture with each orientation, against the definition of the tag: where the
// corners go.
TEST_P(ExifOrientation, TurnsThePictureUpright) {
  Bytes bytes = read_picture("exif_6.jpg");
  const std::size_t tag =
      find_bytes(bytes, std::string_view("\x01\x12\x00\x03\x00\x00\x00\x01", 8));
  patch(bytes, tag + 8, {0, GetParam()});
  DecodeOptions as_stored;
  as_stored.apply_exif = false;
  const auto stored = decode_image(bytes, as_stored);
  const auto upright = decode_image(bytes, {});
  ASSERT_TRUE(stored.ok() && upright.ok());
  EXPECT_EQ(stored->width, 320);
  const bool swaps = GetParam() >= 5;
  ASSERT_EQ(upright->width, swaps ? 240 : 320);
  ASSERT_EQ(upright->height, swaps ? 320 : 240);
  const int right = stored->width - 1, bottom = stored->height - 1;
  for (int y = 0; y < upright->height; ++y) {
    for (int x = 0; x < upright->width; ++x) {
      const int sources[8][2] = {{x, y}, {right - x, y},  {right - x, bottom - y}, {x, bottom - y},
                                 {y, x}, {y, bottom - x}, {right - y, bottom - x}, {right - y, x}};
      const auto [from_x, from_y] = sources[GetParam() - 1];
      for (int c = 0; c < 3; ++c) {
        ASSERT_EQ(upright->rgb[static_cast<std::size_t>(3 * (y * upright->width + x) + c)],
                  stored->rgb[static_cast<std::size_t>(3 * (from_y * stored->width + from_x) + c)])
            << x << "," << y;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ExifOrientation, testing::Range(1, 9));

TEST(ExifOrientationTag, OutOfRangeMeansUpright) {
  Bytes bytes = read_picture("exif_6.jpg");
  const std::size_t tag =
      find_bytes(bytes, std::string_view("\x01\x12\x00\x03\x00\x00\x00\x01", 8));
  for (const int value : {0, 9, 255}) {
    patch(bytes, tag + 8, {0, value});
    const auto image = decode_image(bytes, {});
    ASSERT_TRUE(image.ok());
    EXPECT_EQ(image->width, 320);
  }
}

TEST(ExifOrientationTag, DamagedBlocksAreIgnored) {
  Bytes bytes = read_picture("exif_6.jpg");
  const std::size_t exif = find_bytes(bytes, "Exif");
  // The offset of the directory points far outside, then the byte order is nonsense.
  patch(bytes, exif + 10, {0xff, 0xff, 0xff, 0xf0});
  EXPECT_EQ(decode_image(bytes, {})->width, 320);
  patch(bytes, exif + 6, {'X', 'X'});
  EXPECT_EQ(decode_image(bytes, {})->width, 320);
}

}  // namespace
}  // namespace fovea
