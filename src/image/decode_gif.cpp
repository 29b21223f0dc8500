#include <algorithm>
#include <cstring>
#include <gif_lib.h>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/try.h"
#include "image/decode_formats.h"

namespace fovea {
namespace {

// What giflib reads from. `end` shrinks to the last whole data block of the first frame once that
// is known, and zero bytes (block terminators) follow it: so a file cut off behind its pixels
// decodes and one cut off inside them does not.
struct GifSource {
  std::span<const std::byte> bytes;
  std::size_t position = 0;
  std::size_t end = 0;
  bool zeros_follow = false;
};

int read_source(GifFileType* gif, GifByteType* to, int num_bytes) {
  auto& source = *static_cast<GifSource*>(gif->UserData);
  const auto wanted = static_cast<std::size_t>(num_bytes);
  const std::size_t given = std::min(wanted, source.end - source.position);
  std::memcpy(to, source.bytes.data() + source.position, given);
  source.position += given;
  if (!source.zeros_follow) return static_cast<int>(given);
  std::memset(to + given, 0, wanted - given);
  return num_bytes;
}

void end_source_after_frame(GifSource& source) {
  std::size_t at = source.position;
  while (at < source.bytes.size()) {
    const auto length = std::to_integer<std::size_t>(source.bytes[at]);
    if (length == 0 || length >= source.bytes.size() - at) break;
    at += 1 + length;
  }
  source.end = at;
  source.zeros_follow = true;
}

struct GifDeleter {
  void operator()(GifFileType* gif) const { DGifCloseFile(gif, nullptr); }
};
using Gif = std::unique_ptr<GifFileType, GifDeleter>;

Error failure(int gif_error) {
  switch (gif_error) {
    case D_GIF_ERR_READ_FAILED:
    case D_GIF_ERR_EOF_TOO_SOON:
    case D_GIF_ERR_IMAGE_DEFECT:
      return invalid_argument("GIF picture is truncated or damaged: its pixels end too soon");
    default: {
      const char* text = GifErrorString(gif_error);
      return invalid_argument("GIF picture is damaged: {}", text == nullptr ? "unknown" : text);
    }
  }
}

// Reads records up to the first frame's descriptor. `transparent` receives the index of its
// graphics control extension, -1 without one.
Status seek_first_frame(GifFileType* gif, int& transparent) {
  for (;;) {
    GifRecordType type = UNDEFINED_RECORD_TYPE;
    if (DGifGetRecordType(gif, &type) != GIF_OK) return failure(gif->Error);
    if (type == TERMINATE_RECORD_TYPE) return invalid_argument("GIF picture has no frame");
    if (type == IMAGE_DESC_RECORD_TYPE) {
      return DGifGetImageDesc(gif) == GIF_OK ? Status() : failure(gif->Error);
    }
    if (type != EXTENSION_RECORD_TYPE) continue;
    int code = 0;
    GifByteType* block = nullptr;
    if (DGifGetExtension(gif, &code, &block) != GIF_OK) return failure(gif->Error);
    if (code == GRAPHICS_EXT_FUNC_CODE && block != nullptr) {
      GraphicsControlBlock control;
      if (DGifExtensionToGCB(block[0], block + 1, &control) == GIF_OK &&
          control.TransparentColor != NO_TRANSPARENT_COLOR) {
        transparent = control.TransparentColor;
      }
    }
    while (block != nullptr) {
      if (DGifGetExtensionNext(gif, &block) != GIF_OK) return failure(gif->Error);
    }
  }
}

// Colours of all 256 indices, 3 bytes each: the frame's own map, else the file's. Indices beyond
// the map are grey, as in Pillow.
std::vector<std::uint8_t> palette_of(const GifFileType& gif) {
  const ColorMapObject* map = gif.Image.ColorMap != nullptr ? gif.Image.ColorMap : gif.SColorMap;
  std::vector<std::uint8_t> palette(3 * 256);
  for (int i = 0; i < 256; ++i) {
    std::uint8_t* color = palette.data() + 3 * i;
    if (map != nullptr && i < map->ColorCount) {
      color[0] = map->Colors[i].Red;
      color[1] = map->Colors[i].Green;
      color[2] = map->Colors[i].Blue;
    } else {
      std::memset(color, i, 3);
    }
  }
  return palette;
}

// Row numbers of the frame in the order in which the file holds them.
std::vector<int> row_order(int height, bool interlaced) {
  std::vector<int> rows;
  rows.reserve(static_cast<std::size_t>(height));
  constexpr int kStart[] = {0, 4, 2, 1};
  constexpr int kStep[] = {8, 8, 4, 2};
  for (int pass = 0; pass < 4; ++pass) {
    const int step = interlaced ? kStep[pass] : 1;
    for (int y = interlaced ? kStart[pass] : 0; y < height; y += step) rows.push_back(y);
    if (!interlaced) break;
  }
  return rows;
}

// Draws the frame at its place; the picture is at least as large as the frame's far corner.
Status draw_frame(GifFileType* gif, const std::vector<std::uint8_t>& palette, Image& image) {
  const GifImageDesc& frame = gif->Image;
  std::vector<GifByteType> line(static_cast<std::size_t>(frame.Width));
  for (const int y : row_order(frame.Height, frame.Interlace)) {
    if (DGifGetLine(gif, line.data(), frame.Width) != GIF_OK) return failure(gif->Error);
    const std::size_t pixel =
        static_cast<std::size_t>(frame.Top + y) * static_cast<std::size_t>(image.width) +
        static_cast<std::size_t>(frame.Left);
    std::uint8_t* to = image.rgb.data() + 3 * pixel;
    for (const GifByteType index : line) {
      std::memcpy(to, palette.data() + 3 * std::size_t{index}, 3);
      to += 3;
    }
  }
  return {};
}

}  // namespace

Result<DecodedPicture> decode_gif(std::span<const std::byte> bytes, const DecodeOptions& options) {
  GifSource source{bytes, 0, bytes.size(), false};
  int gif_error = 0;
  const Gif gif(DGifOpen(&source, read_source, &gif_error));
  if (gif == nullptr) return failure(gif_error);
  int transparent = -1;
  FOVEA_TRY_STATUS(seek_first_frame(gif.get(), transparent));
  end_source_after_frame(source);

  // A frame may reach over the edge of the screen that the header announces; the picture grows with
  // it, as in Pillow.
  const GifImageDesc& frame = gif->Image;
  const std::int64_t width = std::max<std::int64_t>(gif->SWidth, frame.Left + frame.Width);
  const std::int64_t height = std::max<std::int64_t>(gif->SHeight, frame.Top + frame.Height);
  FOVEA_TRY_STATUS(check_picture_size(width, height, options));
  if (frame.Width <= 0 || frame.Height <= 0) return invalid_argument("GIF frame has no pixels");

  DecodedPicture picture;
  picture.image = blank_image(width, height);
  const std::vector<std::uint8_t> palette = palette_of(*gif);
  // What the frame leaves uncovered has the transparent colour, else colour 0.
  const std::uint8_t* background = palette.data() + 3 * std::max(transparent, 0);
  for (std::size_t i = 0; i < picture.image.rgb.size(); i += 3) {
    std::memcpy(picture.image.rgb.data() + i, background, 3);
  }
  FOVEA_TRY_STATUS(draw_frame(gif.get(), palette, picture.image));
  return picture;
}

}  // namespace fovea
