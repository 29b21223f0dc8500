#include "image/encode_png.h"

#include <csetjmp>
#include <cstdint>
#include <png.h>

#include "base/error.h"

namespace fovea {
namespace {

// Outlives the frame that setjmp returns to: libpng leaves by longjmp, which must not skip
// destructors.
struct PngWriter {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::vector<std::byte> bytes;

  ~PngWriter() { png_destroy_write_struct(&png, &info); }
};

[[noreturn]] void on_write_error(png_structp png, png_const_charp) { png_longjmp(png, 1); }

void on_write_warning(png_structp, png_const_charp) {}

void on_write(png_structp png, png_bytep data, png_size_t num_bytes) {
  auto& writer = *static_cast<PngWriter*>(png_get_io_ptr(png));
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  writer.bytes.insert(writer.bytes.end(), begin, begin + num_bytes);
}

void on_flush(png_structp) {}

bool write_picture(PngWriter& writer, const Image& image) {
  png_structp png = writer.png;
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_set_write_fn(png, &writer, on_write, on_flush);
  png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  constexpr int kFastCompression = 3;
  png_set_compression_level(png, kFastCompression);
  png_set_IHDR(png, writer.info, static_cast<png_uint_32>(image.width),
               static_cast<png_uint_32>(image.height), 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, writer.info);
  const std::size_t row_bytes = 3 * static_cast<std::size_t>(image.width);
  for (int y = 0; y < image.height; ++y) {
    png_write_row(png, image.rgb.data() + static_cast<std::size_t>(y) * row_bytes);
  }
  png_write_end(png, writer.info);
  return true;
}

}  // namespace

Result<std::vector<std::byte>> encode_png(const Image& image) {
  if (image.width <= 0 || image.height <= 0) {
    return invalid_argument("picture {}x{} has no pixels", image.width, image.height);
  }
  PngWriter writer;
  writer.png =
      png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, on_write_error, on_write_warning);
  if (writer.png != nullptr) writer.info = png_create_info_struct(writer.png);
  if (writer.info == nullptr || !write_picture(writer, image)) {
    return error(ErrorCode::kInternal, "the picture could not be written as PNG");
  }
  return std::move(writer.bytes);
}

}  // namespace fovea
