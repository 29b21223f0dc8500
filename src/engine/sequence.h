#pragma once

#include <optional>
#include <vector>

#include "backend/buffer.h"
#include "engine/page_allocator.h"
#include "engine/token.h"

namespace fovea {

/// One generation in flight: its tokens and the pages that hold its keys and values. Returns its
/// pages when it goes.
///
/// Positions: 0 is the beginning of sequence; a picture takes the next image_tokens; then the
/// prompt and the answer.
class Sequence {
 public:
  /// `image_embeddings` [image_tokens, D] on the device, which must outlive the sequence; empty for
  /// none.
  Sequence(PageAllocator& allocator, int page_size, TokenId bos, TensorView image_embeddings)
      : allocator_(&allocator), page_size_(page_size), bos_(bos), image_(image_embeddings) {}
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence() {
    for (const PageId page : pages_) allocator_->release(page);
  }

  TokenId bos() const { return bos_; }
  TensorView image() const { return image_; }
  int image_tokens() const { return image_.empty() ? 0 : static_cast<int>(image_.shape[0]); }
  /// Leading positions that see one another: BOS and picture; 0 without a picture.
  int prefix_len() const { return image_.empty() ? 0 : 1 + image_tokens(); }

  void append(const Token& token) { tokens_.push_back(token); }
  /// The token at a position behind the picture.
  const Token& token_at(int position) const {
    return tokens_[static_cast<std::size_t>(position - 1 - image_tokens())];
  }

  /// Positions in all, and those whose keys and values are in the cache.
  int length() const { return 1 + image_tokens() + static_cast<int>(tokens_.size()); }
  int num_computed() const { return num_computed_; }
  void mark_computed(int position) { num_computed_ = position; }

  /// Takes pages until `num_positions` fit. False when the pool is empty; what was taken stays.
  bool reserve(int num_positions) {
    while (static_cast<int>(pages_.size()) * page_size_ < num_positions) {
      const std::optional<PageId> page = allocator_->allocate();
      if (!page) return false;
      pages_.push_back(*page);
    }
    return true;
  }
  const std::vector<PageId>& pages() const { return pages_; }
  /// Where keys and values of a position go: page * page_size + offset.
  int slot_of(int position) const {
    return pages_[static_cast<std::size_t>(position / page_size_)].value() * page_size_ +
           position % page_size_;
  }

 private:
  PageAllocator* allocator_;
  int page_size_;
  TokenId bos_;
  TensorView image_;
  std::vector<Token> tokens_;
  std::vector<PageId> pages_;
  int num_computed_ = 0;
};

}  // namespace fovea
