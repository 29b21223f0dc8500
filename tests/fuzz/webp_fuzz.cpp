// Any bytes given to the WebP decoder: it must answer with a picture of the promised size or an
// error.
#include "picture_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fovea::fuzz::decode_as(fovea::decode_webp, data, size);
  return 0;
}
