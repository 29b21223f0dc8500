#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <utility>

// After <cstdio>: the header uses FILE without declaring it.
#include <jpeglib.h>

#include "base/error.h"
#include "base/try.h"
#include "image/decode_formats.h"
#include "image/exif.h"

namespace fovea {
namespace {

// libjpeg reports errors by calling a function that must not return. It leaves by longjmp, which
// may only skip frames without destructors: every function here that calls setjmp holds plain data,
// and this struct outlives them all.
struct JpegSession {
  jpeg_decompress_struct decoder;
  jpeg_error_mgr errors;
  jpeg_source_mgr source;
  jpeg_progress_mgr progress;
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
  int max_scans;
  bool too_many_scans;
};

JpegSession& session_of(j_common_ptr decoder) {
  return *static_cast<JpegSession*>(decoder->client_data);
}

[[noreturn]] void on_error(j_common_ptr decoder) {
  JpegSession& session = session_of(decoder);
  session.errors.format_message(decoder, session.message);
  std::longjmp(session.escape, 1);
}

// Warnings are about damage that the decoder repairs; Pillow ignores them too.
void on_message(j_common_ptr) {}

void on_progress(j_common_ptr decoder) {
  JpegSession& session = session_of(decoder);
  if (session.decoder.input_scan_number <= session.max_scans) return;
  session.too_many_scans = true;
  std::longjmp(session.escape, 1);
}

void source_nothing(j_decompress_ptr) {}

// All bytes were given at the start. "Suspend" makes a truncated file end in a refusal, where
// inventing an end marker would give a half grey picture.
boolean source_suspend(j_decompress_ptr) { return FALSE; }

void source_skip(j_decompress_ptr decoder, long num_bytes) {
  if (num_bytes <= 0) return;
  jpeg_source_mgr& source = *decoder->src;
  const std::size_t skipped = std::min(static_cast<std::size_t>(num_bytes), source.bytes_in_buffer);
  source.next_input_byte += skipped;
  source.bytes_in_buffer -= skipped;
}

enum class JpegStep { kDone, kFailed, kTruncated };

JpegStep read_header(JpegSession& session, const unsigned char* data, std::size_t size) {
  session.decoder.err = jpeg_std_error(&session.errors);
  session.errors.error_exit = on_error;
  session.errors.output_message = on_message;
  session.decoder.client_data = &session;
  if (setjmp(session.escape) != 0) return JpegStep::kFailed;
  jpeg_create_decompress(&session.decoder);
  session.progress.progress_monitor = on_progress;
  session.decoder.progress = &session.progress;
  session.source.next_input_byte = data;
  session.source.bytes_in_buffer = size;
  session.source.init_source = source_nothing;
  session.source.fill_input_buffer = source_suspend;
  session.source.skip_input_data = source_skip;
  session.source.resync_to_restart = jpeg_resync_to_restart;
  session.source.term_source = source_nothing;
  session.decoder.src = &session.source;
  jpeg_save_markers(&session.decoder, JPEG_APP0 + 1, 0xffff);
  const int status = jpeg_read_header(&session.decoder, TRUE);
  return status == JPEG_HEADER_OK ? JpegStep::kDone : JpegStep::kTruncated;
}

// Fills pixels [height, width, num_components] in the requested colour space.
JpegStep read_pixels(JpegSession& session, J_COLOR_SPACE space, unsigned char* pixels) {
  if (setjmp(session.escape) != 0) return JpegStep::kFailed;
  jpeg_decompress_struct& decoder = session.decoder;
  decoder.out_color_space = space;
  decoder.dct_method = JDCT_ISLOW;
  if (!jpeg_start_decompress(&decoder)) return JpegStep::kTruncated;
  const std::size_t row_bytes =
      std::size_t{decoder.output_width} * static_cast<std::size_t>(decoder.output_components);
  while (decoder.output_scanline < decoder.output_height) {
    JSAMPROW row = pixels + decoder.output_scanline * row_bytes;
    if (jpeg_read_scanlines(&decoder, &row, 1) != 1) return JpegStep::kTruncated;
  }
  // Also looks for the end marker: a file that ends without one is truncated, as for Pillow.
  return jpeg_finish_decompress(&decoder) ? JpegStep::kDone : JpegStep::kTruncated;
}

Error failure(const JpegSession& session, JpegStep step, const DecodeOptions& options) {
  if (step == JpegStep::kTruncated) {
    return invalid_argument("JPEG picture is truncated: the data ends before the picture does");
  }
  if (session.too_many_scans) {
    return error(ErrorCode::kResourceExhausted, "JPEG picture exceeds max_progressive_scans {}",
                 options.max_progressive_scans);
  }
  return invalid_argument("JPEG picture is damaged: {}", static_cast<const char*>(session.message));
}

int stored_orientation(const jpeg_decompress_struct& decoder) {
  for (auto* marker = decoder.marker_list; marker != nullptr; marker = marker->next) {
    if (marker->marker != JPEG_APP0 + 1 || marker->data_length < 6) continue;
    if (std::memcmp(marker->data, "Exif\0", 5) != 0) continue;
    return exif_orientation(
        std::as_bytes(std::span(marker->data, std::size_t{marker->data_length})));
  }
  return 1;
}

// 4 bytes per pixel in `cmyk` as stored (Adobe's inverted values: 255 is no ink) to RGB by Pillow's
// arithmetic.
void cmyk_to_rgb(const unsigned char* cmyk, Image& image) {
  const std::size_t num_pixels = image.rgb.size() / 3;
  for (std::size_t i = 0; i < num_pixels; ++i) {
    const int white = cmyk[4 * i + 3];
    for (std::size_t c = 0; c < 3; ++c) {
      const int ink = 255 - cmyk[4 * i + c];
      const int product = ink * white + 128;
      const int value = white - (((product >> 8) + product) >> 8);
      image.rgb[3 * i + c] = static_cast<std::uint8_t>(value < 0 ? 0 : value);
    }
  }
}

// Owns what libjpeg allocates inside a session.
class JpegDecoder {
 public:
  explicit JpegDecoder(const DecodeOptions& options) {
    session_.max_scans = options.max_progressive_scans;
  }
  ~JpegDecoder() { jpeg_destroy_decompress(&session_.decoder); }
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;
  JpegSession& session() { return session_; }

 private:
  JpegSession session_{};
};

}  // namespace

Result<DecodedPicture> decode_jpeg(std::span<const std::byte> bytes, const DecodeOptions& options) {
  JpegDecoder owner(options);
  JpegSession& session = owner.session();
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  JpegStep step = read_header(session, data, bytes.size());
  if (step != JpegStep::kDone) return failure(session, step, options);
  const jpeg_decompress_struct& decoder = session.decoder;
  FOVEA_TRY_STATUS(check_picture_size(decoder.image_width, decoder.image_height, options));

  DecodedPicture picture;
  picture.orientation = stored_orientation(decoder);
  picture.image = blank_image(decoder.image_width, decoder.image_height);
  std::vector<std::uint8_t>& rgb = picture.image.rgb;
  switch (decoder.num_components) {
    case 1:
    case 3:
      // libjpeg-turbo repeats grey three times itself.
      step = read_pixels(session, JCS_RGB, rgb.data());
      break;
    case 4: {
      std::vector<unsigned char> cmyk(rgb.size() / 3 * 4);
      step = read_pixels(session, JCS_CMYK, cmyk.data());
      if (step == JpegStep::kDone) cmyk_to_rgb(cmyk.data(), picture.image);
      break;
    }
    default:
      return invalid_argument("JPEG picture has {} colour components; 1, 3 and 4 are accepted",
                              decoder.num_components);
  }
  if (step != JpegStep::kDone) return failure(session, step, options);
  return picture;
}

}  // namespace fovea
