// decode_picture [--no-exif] FILE...: one line for each file: "WIDTHxHEIGHT SHA256-of-RGB FILE" or
// "error: MESSAGE FILE". tools/check_odd_pictures.py compares these lines with what Pillow makes of
// the same files.
#include <cstdio>
#include <cstring>

#include "base/mapped_file.h"
#include "image/decode.h"
#include "support/sha256.h"

int main(int argc, char** argv) {
  fovea::DecodeOptions options;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--no-exif") == 0) {
      options.apply_exif = false;
      continue;
    }
    const auto file = fovea::MappedFile::open(argv[i]);
    if (!file.ok()) {
      std::printf("error: %s\t%s\n", file.error().message.c_str(), argv[i]);
      continue;
    }
    const auto image = fovea::decode_image(file->bytes(), options);
    if (!image.ok()) {
      std::printf("error: %s\t%s\n", image.error().message.c_str(), argv[i]);
      continue;
    }
    const std::string hash = fovea::test::sha256_hex(std::as_bytes(std::span(image->rgb)));
    std::printf("%dx%d %s\t%s\n", image->width, image->height, hash.c_str(), argv[i]);
  }
  return 0;
}
