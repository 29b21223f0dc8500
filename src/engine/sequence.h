#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/math.h"
#include "engine/adapter_residency.h"
#include "engine/image_cache.h"
#include "engine/page_allocator.h"
#include "engine/prefix_cache.h"
#include "engine/prefix_key.h"
#include "engine/token.h"

namespace fovea {

/// What a sequence is made of before anything is generated.
struct Prompt {
  TokenId bos;
  /// The picture, as the prefix cache knows it; none for text alone.
  std::optional<ImageIdentity> picture;
  int image_tokens = 0;  ///< positions of the picture; 0 without one
  std::vector<Token> tokens;
  std::int32_t adapter = kNoAdapter;  ///< AdapterEntry::id, a namespace in the prefix cache
};

/// One generation in flight: its tokens and the pages that hold its keys and values.
///
/// Positions: 0 is the beginning of sequence; a picture takes the next image_tokens; then the
/// prompt and the answer. A position is *computed* when a step that writes its keys and values has
/// been launched. Its last sampled token may not be known to the host yet (`awaits_token`): the
/// device has it, and the next step may be launched over it.
class Sequence {
 public:
  /// The allocator and the cache must outlive the sequence.
  Sequence(PageAllocator& allocator, PrefixCache& cache, int page_size, Prompt prompt)
      : allocator_(allocator), cache_(cache), page_size_(page_size), prompt_(std::move(prompt)) {
    if (prompt_.picture) {
      keys_.push_back(PrefixKey::of_picture(prompt_.bos, *prompt_.picture, prompt_.image_tokens));
    } else {
      keys_.push_back(PrefixKey::of(Token::text(prompt_.bos)));
    }
    for (const Token& token : prompt_.tokens) keys_.push_back(PrefixKey::of(token));
    tokens_ = prompt_.tokens;
  }
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence() { release(); }

  TokenId bos() const { return prompt_.bos; }
  std::int32_t adapter() const { return prompt_.adapter; }
  const std::optional<ImageIdentity>& picture() const { return prompt_.picture; }
  int image_tokens() const { return prompt_.image_tokens; }
  /// Leading positions that see one another: BOS and picture; 0 without a picture.
  int prefix_len() const { return prompt_.picture ? 1 + prompt_.image_tokens : 0; }
  int prompt_len() const {
    return 1 + prompt_.image_tokens + static_cast<int>(prompt_.tokens.size());
  }

  /// The picture's embeddings; needed while positions of the prefix are computed.
  const std::shared_ptr<const EncodedImage>& image() const { return image_; }
  void set_image(std::shared_ptr<const EncodedImage> image) { image_ = std::move(image); }

  void append(const Token& token) {
    keys_.push_back(PrefixKey::of(token));
    tokens_.push_back(token);
  }
  /// The token at a position behind the picture.
  const Token& token_at(int position) const {
    return tokens_[static_cast<std::size_t>(position - 1 - prompt_.image_tokens)];
  }
  std::span<const PrefixKey> keys() const { return keys_; }

  /// Positions whose tokens are known.
  int length() const { return 1 + prompt_.image_tokens + static_cast<int>(tokens_.size()); }
  int num_generated() const { return length() - prompt_len(); }
  int num_computed() const { return num_computed_; }
  void mark_computed(int position) { num_computed_ = position; }

  // ---- pages

  const std::vector<PageId>& pages() const { return pages_; }
  /// Where keys and values of a position go: page * page_size + offset.
  int slot_of(int position) const {
    return pages_[static_cast<std::size_t>(position / page_size_)].value() * page_size_ +
           position % page_size_;
  }
  /// Pages that are missing before `num_positions` fit; one that is shared and about to be written
  /// counts.
  int pages_missing(int num_positions) const {
    const int wanted = ceil_div(num_positions, page_size_);
    return std::max(0, wanted - static_cast<int>(pages_.size())) +
           (must_copy_last_page(num_positions) ? 1 : 0);
  }
  /// A page whose contents must reach another before the sequence writes.
  struct PageCopy {
    PageId from, to;
  };
  /// Takes pages until `num_positions` fit. A shared page that is partly filled is replaced by a
  /// page of its own: `copy` says what must be copied, and the caller releases copy->from once that
  /// is enqueued. False when the pool is empty; what was taken stays, so `copy` may be set then as
  /// well, and a later call does not set it again.
  bool reserve(int num_positions, std::optional<PageCopy>& copy) {
    // What may throw comes first: no page is taken that nobody would know of.
    pages_.reserve(static_cast<std::size_t>(ceil_div(num_positions, page_size_)));
    if (must_copy_last_page(num_positions)) {
      const std::optional<PageId> page = allocator_.allocate();
      if (!page) return false;
      copy = PageCopy{pages_.back(), *page};
      pages_.back() = *page;
      owns_last_page_ = true;
    }
    while (static_cast<int>(pages_.size()) * page_size_ < num_positions) {
      const std::optional<PageId> page = allocator_.allocate();
      if (!page) return false;
      pages_.push_back(*page);
      owns_last_page_ = true;
    }
    return true;
  }

  // ---- the prefix cache

  /// Starts behind the longest cached beginning. At least one position is left to compute, and the
  /// picture is taken as a whole or not at all. Returns the positions found. Precondition: nothing
  /// is computed.
  int start_from_cache() {
    FOVEA_CHECK(pages_.empty() && lock_ == nullptr, "a sequence starts once");
    PrefixCache::Match match = cache_.match(prompt_.adapter, keys_, length() - 1);
    if (match.num_positions == 1) {
      // The beginning of sequence alone is not worth the copy of its page.
      for (const PageId page : match.pages) allocator_.release(page);
      cache_.unlock(match.node);
      return 0;
    }
    pages_ = std::move(match.pages);
    lock_ = match.node;
    num_computed_ = match.num_positions;
    owns_last_page_ = false;
    return match.num_positions;
  }

  /// Offers the first `num_positions` positions to the cache. They must be computed.
  void offer_to_cache(int num_positions) {
    FOVEA_CHECK(num_positions <= num_computed_, "{} positions of {} computed", num_positions,
                num_computed_);
    std::size_t num_keys = 0;
    int covered = 0;
    while (num_keys < keys_.size() && covered + keys_[num_keys].span <= num_positions) {
      covered += keys_[num_keys].span;
      ++num_keys;
    }
    cache_.insert(prompt_.adapter, std::span(keys_).first(num_keys), pages_);
  }

  /// Gives every page back and forgets what was computed: a pre-empted sequence starts again.
  void release() noexcept {
    for (const PageId page : pages_) allocator_.release(page);
    pages_.clear();
    if (lock_ != nullptr) cache_.unlock(std::exchange(lock_, nullptr));
    num_computed_ = 0;
    owns_last_page_ = false;
  }

 private:
  // The page that position num_computed_ falls into came from the cache and holds earlier
  // positions.
  bool must_copy_last_page(int num_positions) const {
    return !owns_last_page_ && num_computed_ % page_size_ != 0 && num_positions > num_computed_ &&
           !pages_.empty();
  }

  PageAllocator& allocator_;
  PrefixCache& cache_;
  int page_size_;
  Prompt prompt_;
  std::vector<Token> tokens_;
  std::vector<PrefixKey> keys_;
  std::shared_ptr<const EncodedImage> image_;
  std::vector<PageId> pages_;
  PrefixCache::Node* lock_ = nullptr;
  bool owns_last_page_ = false;  // it was allocated here, so nobody else writes to it
  int num_computed_ = 0;
};

}  // namespace fovea
