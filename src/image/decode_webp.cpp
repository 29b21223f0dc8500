#include <memory>
#include <utility>
#include <webp/decode.h>
#include <webp/demux.h>

#include "base/error.h"
#include "base/try.h"
#include "image/decode_formats.h"
#include "image/exif.h"

namespace fovea {
namespace {

struct DemuxerDeleter {
  void operator()(WebPDemuxer* demuxer) const { WebPDemuxDelete(demuxer); }
};
using Demuxer = std::unique_ptr<WebPDemuxer, DemuxerDeleter>;

int stored_orientation(const WebPDemuxer* demuxer) {
  WebPChunkIterator chunk;
  int orientation = 1;
  if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk) != 0) {
    orientation = exif_orientation(std::as_bytes(std::span(chunk.chunk.bytes, chunk.chunk.size)));
    WebPDemuxReleaseChunkIterator(&chunk);
  }
  return orientation;
}

// Decodes the first frame into its place on the canvas; what it leaves uncovered stays black.
Status draw_first_frame(const WebPDemuxer* demuxer, Image& canvas) {
  WebPIterator frame;
  if (WebPDemuxGetFrame(demuxer, 1, &frame) == 0) {
    return invalid_argument("WebP picture has no frame");
  }
  const bool fits = frame.x_offset >= 0 && frame.y_offset >= 0 &&
                    frame.width <= canvas.width - frame.x_offset &&
                    frame.height <= canvas.height - frame.y_offset;
  bool decoded = false;
  if (fits) {
    const std::size_t stride = 3 * static_cast<std::size_t>(canvas.width);
    const std::size_t offset = static_cast<std::size_t>(frame.y_offset) * stride +
                               3 * static_cast<std::size_t>(frame.x_offset);
    decoded =
        WebPDecodeRGBInto(frame.fragment.bytes, frame.fragment.size, canvas.rgb.data() + offset,
                          canvas.rgb.size() - offset, static_cast<int>(stride)) != nullptr;
  }
  WebPDemuxReleaseIterator(&frame);
  if (!decoded) return invalid_argument("WebP picture is damaged: its first frame does not decode");
  return {};
}

}  // namespace

Result<DecodedPicture> decode_webp(std::span<const std::byte> bytes, const DecodeOptions& options) {
  const WebPData data{reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
  WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
  const Demuxer demuxer(WebPDemuxPartial(&data, &state));
  if (state == WEBP_DEMUX_PARSING_HEADER || state == WEBP_DEMUX_PARSED_HEADER) {
    return invalid_argument("WebP picture is truncated: the data ends before the picture does");
  }
  if (demuxer == nullptr || state != WEBP_DEMUX_DONE) {
    return invalid_argument("WebP picture is damaged: its chunks do not form a picture");
  }
  const std::int64_t width = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_WIDTH);
  const std::int64_t height = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_HEIGHT);
  FOVEA_TRY_STATUS(check_picture_size(width, height, options));

  DecodedPicture picture;
  picture.image = blank_image(width, height);
  FOVEA_TRY_STATUS(draw_first_frame(demuxer.get(), picture.image));
  picture.orientation = stored_orientation(demuxer.get());
  return picture;
}

}  // namespace fovea
