#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <png.h>
#include <utility>

#include "base/error.h"
#include "base/try.h"
#include "image/decode_formats.h"
#include "image/exif.h"

namespace fovea {
namespace {

// libpng reports errors by calling a function that must not return. It leaves by longjmp, which may
// only skip frames without destructors: every function here that calls setjmp holds plain data, and
// this struct outlives them all.
struct PngSession {
  png_structp png = nullptr;
  png_infop info = nullptr;
  const unsigned char* data = nullptr;
  std::size_t size = 0;
  std::size_t position = 0;
  bool truncated = false;
  char message[128] = {};

  ~PngSession() { png_destroy_read_struct(&png, &info, nullptr); }
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto& session = *static_cast<PngSession*>(png_get_error_ptr(png));
  std::snprintf(session.message, sizeof(session.message), "%s", message);
  png_longjmp(png, 1);
}

// Warnings are about chunks that do not change the pixels.
void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep to, png_size_t num_bytes) {
  auto& session = *static_cast<PngSession*>(png_get_io_ptr(png));
  if (session.size - session.position < num_bytes) {
    session.truncated = true;
    png_error(png, "truncated");
  }
  std::memcpy(to, session.data + session.position, num_bytes);
  session.position += num_bytes;
}

bool read_header(PngSession& session) {
  if (setjmp(png_jmpbuf(session.png)) != 0) return false;
  png_set_read_fn(session.png, &session, on_read);
  // Sizes are checked by check_picture_size, whose message names the limit.
  png_set_user_limits(session.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  // As Pillow does: a wrong checksum before the pixels is refused, one of the pixel data is not
  // looked at.
  png_set_crc_action(session.png, PNG_CRC_DEFAULT, PNG_CRC_ERROR_QUIT);
  png_read_info(session.png, session.info);
  png_set_crc_action(session.png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
  return true;
}

// Gives indices beyond the palette the grey that they have in Pillow.
bool complete_palette(PngSession& session) {
  png_colorp colors = nullptr;
  int num_colors = 0;
  if (png_get_PLTE(session.png, session.info, &colors, &num_colors) == 0) return true;
  png_color all[PNG_MAX_PALETTE_LENGTH];
  const int num_indices = 1 << png_get_bit_depth(session.png, session.info);
  for (int i = 0; i < num_indices; ++i) {
    const auto grey = static_cast<png_byte>(i);
    all[i] = i < num_colors ? colors[i] : png_color{grey, grey, grey};
  }
  if (setjmp(png_jmpbuf(session.png)) != 0) return false;
  png_set_PLTE(session.png, session.info, all, num_indices);
  return true;
}

// Fills pixels [height, width, 3], or [height, width] of big-endian 16-bit values for 16-bit grey.
bool read_pixels(PngSession& session, bool grey16, unsigned char* pixels) {
  png_structp png = session.png;
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  if (!grey16) {
    png_set_palette_to_rgb(png);
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_strip_16(png);
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
  }
  const int num_passes = png_set_interlace_handling(png);
  png_read_update_info(png, session.info);
  const png_uint_32 height = png_get_image_height(png, session.info);
  const std::size_t row_bytes = png_get_rowbytes(png, session.info);
  for (int pass = 0; pass < num_passes; ++pass) {
    for (png_uint_32 y = 0; y < height; ++y) {
      png_read_row(png, pixels + y * row_bytes, nullptr);
    }
  }
  return true;
}

// Chunks behind the pixels only matter for EXIF; damage there is not an error.
void read_trailer(PngSession& session) {
  if (setjmp(png_jmpbuf(session.png)) != 0) return;
  png_read_end(session.png, session.info);
}

Error failure(const PngSession& session) {
  if (session.truncated) {
    return invalid_argument("PNG picture is truncated: the data ends before the picture does");
  }
  return invalid_argument("PNG picture is damaged: {}", static_cast<const char*>(session.message));
}

int stored_orientation(PngSession& session) {
  png_bytep exif = nullptr;
  png_uint_32 size = 0;
  if (png_get_eXIf_1(session.png, session.info, &size, &exif) == 0) return 1;
  return exif_orientation(std::as_bytes(std::span(exif, std::size_t{size})));
}

// Pillow clips 16-bit grey instead of scaling it: 255 and more is white.
void clip_grey16(const std::vector<unsigned char>& grey, Image& image) {
  for (std::size_t i = 0; i < grey.size() / 2; ++i) {
    const unsigned char value = grey[2 * i] != 0 ? 255 : grey[2 * i + 1];
    std::memset(image.rgb.data() + 3 * i, value, 3);
  }
}

}  // namespace

Result<DecodedPicture> decode_png(std::span<const std::byte> bytes, const DecodeOptions& options) {
  PngSession session;
  session.data = reinterpret_cast<const unsigned char*>(bytes.data());
  session.size = bytes.size();
  session.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &session, on_error, on_warning);
  if (session.png != nullptr) session.info = png_create_info_struct(session.png);
  if (session.info == nullptr) return error(ErrorCode::kInternal, "libpng could not be set up");
  if (!read_header(session)) return failure(session);

  const std::int64_t width = png_get_image_width(session.png, session.info);
  const std::int64_t height = png_get_image_height(session.png, session.info);
  FOVEA_TRY_STATUS(check_picture_size(width, height, options));
  const int color_type = png_get_color_type(session.png, session.info);
  if (color_type == PNG_COLOR_TYPE_PALETTE && !complete_palette(session)) return failure(session);
  const bool grey16 =
      color_type == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(session.png, session.info) == 16;

  DecodedPicture picture;
  picture.image = blank_image(width, height);
  if (grey16) {
    std::vector<unsigned char> grey(picture.image.rgb.size() / 3 * 2);
    if (!read_pixels(session, true, grey.data())) return failure(session);
    clip_grey16(grey, picture.image);
  } else if (!read_pixels(session, false, picture.image.rgb.data())) {
    return failure(session);
  }
  read_trailer(session);
  picture.orientation = stored_orientation(session);
  return picture;
}

}  // namespace fovea
