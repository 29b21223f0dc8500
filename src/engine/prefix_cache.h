#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/page_allocator.h"
#include "engine/prefix_key.h"

namespace fovea {

/// Keys and values of positions that earlier requests computed, as a radix tree over what
/// determines them: a request that begins like an earlier one starts behind the common part. One
/// tree for each adapter, because adapters change keys and values. The idea is SGLang's
/// RadixAttention (Zheng et al. 2024), here with pages of several positions and pictures as single
/// edges.
///
/// A node covers positions [begin, end) and refers to the pages from begin / page_size on. Where
/// `begin` lies inside a page, the node's own first page also holds the positions before it that
/// share the page: whoever continues a partly filled page copies it first. match() and insert()
/// throw std::bad_alloc and then have changed nothing that counts. One thread.
class PrefixCache {
 public:
  class Node;

  /// The allocator must outlive the cache.
  PrefixCache(PageAllocator& allocator, int page_size);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  /// A cached beginning. The caller holds a reference to every page and a lock on the node, and
  /// gives both back: the pages to the allocator, the node to unlock().
  struct Match {
    int num_positions = 0;
    std::vector<PageId> pages;  ///< of positions [0, num_positions); the last may be partly filled
    Node* node = nullptr;       ///< null when nothing matched
  };

  /// The longest cached beginning of `keys` that has at most `max_positions` positions. Counts as a
  /// use. A key is matched as a whole or not at all.
  Match match(std::int32_t adapter, std::span<const PrefixKey> keys, int max_positions);

  /// How many positions match() would find. Changes nothing.
  int peek(std::int32_t adapter, std::span<const PrefixKey> keys) const;

  /// Keeps the positions of `keys`; pages[i] holds positions [i * page_size, ...). Parts that are
  /// cached already stay as they are. The caller keeps its own references.
  void insert(std::int32_t adapter, std::span<const PrefixKey> keys, std::span<const PageId> pages);

  /// A locked node and those above it are not evicted.
  void unlock(Node* node) noexcept;

  /// Drops the least recently used leaves until `num_pages` pages have come free or nothing is left
  /// that would free any: leaves whose pages sequences hold as well stay. Returns the number of
  /// pages that came free.
  int evict(int num_pages) noexcept;

  /// Drops everything that is not locked.
  void clear() noexcept;

  /// Drops everything of one adapter that is not locked (its weights have changed or gone).
  void drop(std::int32_t adapter) noexcept;

  int num_nodes() const { return num_nodes_; }
  /// Pages that the cache refers to, shared ones counted once for each node.
  int num_page_references() const { return num_page_references_; }

 private:
  using Children = std::unordered_map<PrefixKey, std::unique_ptr<Node>, PrefixKeyHash>;

  struct Walk;
  Node* root_of(std::int32_t adapter) const;  // null: it has none
  static Walk walk(Node* root, std::span<const PrefixKey> keys, int max_positions);
  Node* split(Node* node, std::size_t num_keys);
  void touch(Node* node) noexcept;
  void remove_leaf(Node* leaf) noexcept;
  static bool is_evictable(const Node& node);
  void list(Node* node) noexcept;
  void unlist(Node* node) noexcept;
  std::unique_ptr<Node> make_node(Node* parent);
  void hold(Node& node, PageId page) noexcept;
  bool frees_nothing(const Node& leaf) const noexcept;

  PageAllocator& allocator_;
  int page_size_;
  std::map<std::int32_t, std::unique_ptr<Node>> roots_;
  std::set<std::pair<std::uint64_t, Node*>> evictable_;  // by last use
  std::vector<std::int32_t> held_;                       // by page: how many nodes refer to it
  std::uint64_t tick_ = 0;
  int num_nodes_ = 0;
  int num_page_references_ = 0;
};

}  // namespace fovea
