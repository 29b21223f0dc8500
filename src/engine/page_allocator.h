#pragma once

#include <optional>
#include <vector>

#include "base/check.h"
#include "base/ids.h"

namespace fovea {

/// Hands out the physical pages of a KV pool. Constant time; the lowest-numbered free page is not
/// guaranteed. One thread.
class PageAllocator {
 public:
  explicit PageAllocator(int num_pages) : in_use_(static_cast<std::size_t>(num_pages), false) {
    for (int page = num_pages; page-- > 0;) free_.emplace_back(page);
  }

  int num_pages() const { return static_cast<int>(in_use_.size()); }
  int num_free() const { return static_cast<int>(free_.size()); }

  /// A free page, or nothing when all are taken.
  std::optional<PageId> allocate() {
    if (free_.empty()) return std::nullopt;
    const PageId page = free_.back();
    free_.pop_back();
    in_use_[index(page)] = true;
    return page;
  }

  void release(PageId page) {
    FOVEA_CHECK(in_use_[index(page)], "page {} is free already", page.value());
    in_use_[index(page)] = false;
    free_.push_back(page);
  }

 private:
  std::size_t index(PageId page) const {
    FOVEA_CHECK(page.value() >= 0 && page.value() < num_pages(), "no page {}", page.value());
    return static_cast<std::size_t>(page.value());
  }

  std::vector<PageId> free_;
  std::vector<bool> in_use_;
};

}  // namespace fovea
