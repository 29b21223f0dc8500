#include "engine/image_cache.h"

#include <cstring>

#include "base/check.h"

namespace fovea {

std::size_t ImageCache::Hash::operator()(const ImageIdentity& identity) const {
  std::size_t hash = 0;
  std::memcpy(&hash, identity.data(), sizeof(hash));
  return hash;
}

std::shared_ptr<const EncodedImage> ImageCache::find(const ImageIdentity& identity) {
  const auto found = by_identity_.find(identity);
  if (found == by_identity_.end()) {
    ++stats_.misses;
    return nullptr;
  }
  ++stats_.hits;
  by_use_.splice(by_use_.begin(), by_use_, found->second);
  return by_use_.front();
}

void ImageCache::insert(std::shared_ptr<const EncodedImage> image) {
  FOVEA_CHECK(image != nullptr, "no picture to keep");
  if (const auto found = by_identity_.find(image->identity); found != by_identity_.end()) {
    erase(found->second);
  }
  const std::size_t bytes = image->embeddings.size_bytes();
  if (bytes > max_bytes_) return;
  while (size_bytes_ > max_bytes_ - bytes) {
    erase(std::prev(by_use_.end()));
    ++stats_.evictions;
  }
  size_bytes_ += bytes;
  by_use_.push_front(std::move(image));
  by_identity_.emplace(by_use_.front()->identity, by_use_.begin());
}

void ImageCache::clear() {
  by_identity_.clear();
  by_use_.clear();
  size_bytes_ = 0;
}

void ImageCache::erase(Entries::iterator entry) {
  size_bytes_ -= (*entry)->embeddings.size_bytes();
  by_identity_.erase((*entry)->identity);
  by_use_.erase(entry);
}

}  // namespace fovea
