#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "fovea/options.h"
#include "fovea/request.h"
#include "fovea/result.h"

#include "image/identity.h"

namespace fovea {

/// What a picture shows, and its pixels if they had to be decoded to find that out.
struct IdentifiedPicture {
  ImageIdentity identity{};
  std::shared_ptr<const Image> pixels;  ///< null when the file was known already
  double worked_ms = 0;
};

/// Tells pictures apart by their decoded pixels, and remembers the answer for files seen before, so
/// that a known file is not decoded again. Thread-safe.
class PictureIdentifier {
 public:
  PictureIdentifier(const PictureLimits& limits, const CropGeometry& geometry);

  /// Errors: those of decode_picture; a picture of pixels whose sizes disagree.
  Result<IdentifiedPicture> identify(const Picture& picture, bool apply_exif);

  /// The pixels of a picture that identify() accepted before.
  Result<std::shared_ptr<const Image>> pixels(const Picture& picture, bool apply_exif) const;

 private:
  using FileKey = std::pair<ImageIdentity, bool>;  // SHA-256 of the file, and whether EXIF counts
  struct Known {
    ImageIdentity identity;
    std::list<FileKey>::iterator use;
  };

  PictureLimits limits_;
  CropGeometry geometry_;
  std::mutex mutex_;  // guards the two below
  std::list<FileKey> by_use_;
  std::map<FileKey, Known> known_;
};

}  // namespace fovea
