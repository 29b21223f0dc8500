#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>

#include "backend/buffer.h"
#include "image/identity.h"

namespace fovea {

/// A picture after the vision encoder. Immutable; what runs on it shares it.
struct EncodedImage {
  ImageIdentity identity{};
  Tensor embeddings;  ///< [image_tokens, D] on the device
};

/// Pictures that were encoded before, found by what they show. Adapters share them: the vision
/// encoder has none. Holds at most `max_bytes` of device memory and gives up what was not used for
/// longest; an evicted picture that a sequence still holds lives, and its memory counts no more.
/// Engine thread only.
class ImageCache {
 public:
  /// Counts since the cache was made.
  struct Stats {
    std::uint64_t hits = 0;
    std::uint64_t misses = 0;
    std::uint64_t evictions = 0;
  };

  /// 0 bytes keep nothing.
  explicit ImageCache(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  /// The picture, now the one most recently used; null when it is not here.
  std::shared_ptr<const EncodedImage> find(const ImageIdentity& identity);

  /// Keeps a picture, in place of one of the same identity. One that is larger than the whole
  /// budget is not kept, and evicts nothing.
  void insert(std::shared_ptr<const EncodedImage> image);

  /// Forgets every picture; the counts stay, and these are no evictions.
  void clear();

  const Stats& stats() const { return stats_; }
  std::size_t size() const { return by_use_.size(); }
  std::size_t size_bytes() const { return size_bytes_; }
  std::size_t max_bytes() const { return max_bytes_; }

 private:
  using Entries = std::list<std::shared_ptr<const EncodedImage>>;
  // An identity is a hash already: its first bytes spread as well as any.
  struct Hash {
    std::size_t operator()(const ImageIdentity& identity) const;
  };

  void erase(Entries::iterator entry);

  std::size_t max_bytes_;
  std::size_t size_bytes_ = 0;
  Entries by_use_;  // most recently used first
  std::unordered_map<ImageIdentity, Entries::iterator, Hash> by_identity_;
  Stats stats_;
};

}  // namespace fovea
