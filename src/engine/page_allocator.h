#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/check.h"
#include "base/ids.h"

namespace fovea {

/// Hands out the physical pages of a KV pool and counts who refers to each: sequences that read or
/// write it, and the prefix cache. Constant time. One thread.
class PageAllocator {
 public:
  explicit PageAllocator(int num_pages) : references_(static_cast<std::size_t>(num_pages), 0) {
    for (int page = num_pages; page-- > 0;) free_.emplace_back(page);
  }

  int num_pages() const { return static_cast<int>(references_.size()); }
  int num_free() const { return static_cast<int>(free_.size()); }

  /// A free page with one reference, or nothing when all are taken.
  std::optional<PageId> allocate() {
    if (free_.empty()) return std::nullopt;
    const PageId page = free_.back();
    free_.pop_back();
    references_[index(page)] = 1;
    return page;
  }

  /// One more holder of a page that somebody holds already.
  void retain(PageId page) {
    FOVEA_CHECK(references_[index(page)] > 0, "page {} is free", page.value());
    ++references_[index(page)];
  }

  /// Gives one reference back; the page is free when it was the last.
  void release(PageId page) {
    FOVEA_CHECK(references_[index(page)] > 0, "page {} is free already", page.value());
    if (--references_[index(page)] == 0) free_.push_back(page);
  }

  int num_references(PageId page) const { return references_[index(page)]; }

 private:
  std::size_t index(PageId page) const {
    FOVEA_CHECK(page.value() >= 0 && page.value() < num_pages(), "no page {}", page.value());
    return static_cast<std::size_t>(page.value());
  }

  std::vector<PageId> free_;
  std::vector<std::int32_t> references_;
};

}  // namespace fovea
