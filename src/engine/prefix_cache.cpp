#include "engine/prefix_cache.h"

#include <algorithm>

#include "base/check.h"
#include "base/math.h"

namespace fovea {

class PrefixCache::Node {
 public:
  Node* parent = nullptr;
  std::int32_t adapter = 0;
  std::vector<PrefixKey> keys;  // empty for a root
  int begin = 0, end = 0;       // positions
  std::vector<PageId> pages;    // from page begin / page_size on
  Children children;
  int num_locks = 0;  // sequences that started here, or below
  std::uint64_t last_used = 0;
  // The node's entry in the list of evictable ones, while it is not in it: listing takes no memory.
  std::set<std::pair<std::uint64_t, Node*>>::node_type entry;

  bool is_root() const { return parent == nullptr; }
};

// How far keys go down the tree: `node` is the last one reached; num_keys of its own matched.
struct PrefixCache::Walk {
  Node* node = nullptr;
  std::size_t num_keys = 0;   // of node
  std::size_t keys_used = 0;  // of the search
  int num_positions = 0;
};

PrefixCache::PrefixCache(PageAllocator& allocator, int page_size)
    : allocator_(allocator),
      page_size_(page_size),
      held_(static_cast<std::size_t>(allocator.num_pages()), 0) {}

// A node that is ready to be listed. Counts when it is linked.
std::unique_ptr<PrefixCache::Node> PrefixCache::make_node(Node* parent) {
  auto node = std::make_unique<Node>();
  node->parent = parent;
  std::set<std::pair<std::uint64_t, Node*>> entries{{0, node.get()}};
  node->entry = entries.extract(entries.begin());
  return node;
}

// One more node refers to a page. There is room for it in node.pages.
void PrefixCache::hold(Node& node, PageId page) noexcept {
  node.pages.push_back(page);
  ++held_[static_cast<std::size_t>(page.value())];
  ++num_page_references_;
}

PrefixCache::~PrefixCache() {
  // Children before parents, without recursion: a conversation may be a long chain of nodes.
  std::vector<std::unique_ptr<Node>> nodes;
  nodes.reserve(roots_.size());
  for (auto& [adapter, root] : roots_) nodes.push_back(std::move(root));
  while (!nodes.empty()) {
    const std::unique_ptr<Node> node = std::move(nodes.back());
    nodes.pop_back();
    for (const PageId page : node->pages) allocator_.release(page);
    for (auto& [key, child] : node->children) nodes.push_back(std::move(child));
  }
}

bool PrefixCache::is_evictable(const Node& node) {
  return !node.is_root() && node.children.empty() && node.num_locks == 0;
}

void PrefixCache::list(Node* node) noexcept {
  if (!is_evictable(*node) || node->entry.empty()) return;
  node->entry.value() = {node->last_used, node};
  evictable_.insert(std::move(node->entry));
}

void PrefixCache::unlist(Node* node) noexcept {
  if (auto entry = evictable_.extract({node->last_used, node})) node->entry = std::move(entry);
}

PrefixCache::Node* PrefixCache::root_of(std::int32_t adapter) const {
  const auto root = roots_.find(adapter);
  return root != roots_.end() ? root->second.get() : nullptr;
}

PrefixCache::Walk PrefixCache::walk(Node* root, std::span<const PrefixKey> keys,
                                    int max_positions) {
  Walk at{.node = root};
  while (at.num_keys == at.node->keys.size() && at.keys_used < keys.size()) {
    const PrefixKey& next = keys[at.keys_used];
    const auto child = at.node->children.find(next);
    if (child == at.node->children.end() || at.num_positions + next.span > max_positions) break;
    Node* node = child->second.get();
    std::size_t matched = 0;
    while (matched < node->keys.size() && at.keys_used < keys.size() &&
           node->keys[matched] == keys[at.keys_used] &&
           at.num_positions + keys[at.keys_used].span <= max_positions) {
      at.num_positions += keys[at.keys_used].span;
      ++matched;
      ++at.keys_used;
    }
    at.node = node;
    at.num_keys = matched;
  }
  return at;
}

int PrefixCache::peek(std::int32_t adapter, std::span<const PrefixKey> keys) const {
  int all = 0;
  for (const PrefixKey& key : keys) all += key.span;
  Node* root = root_of(adapter);
  return root != nullptr ? walk(root, keys, all).num_positions : 0;
}

void PrefixCache::touch(Node* node) noexcept {
  ++tick_;
  for (; node != nullptr; node = node->parent) {
    const bool listed = is_evictable(*node);
    if (listed) unlist(node);
    node->last_used = tick_;
    if (listed) list(node);
  }
}

// Cuts a node in two behind its first `num_keys` keys and returns the upper part. A page that holds
// positions of both is referred to by both.
PrefixCache::Node* PrefixCache::split(Node* node, std::size_t num_keys) {
  if (num_keys == node->keys.size()) return node;
  FOVEA_CHECK(num_keys > 0, "a node cannot be split at its begin");
  // Everything that takes memory first.
  const auto cut = static_cast<std::ptrdiff_t>(num_keys);
  std::unique_ptr<Node> upper = make_node(node->parent);
  upper->adapter = node->adapter;
  upper->keys.assign(node->keys.begin(), node->keys.begin() + cut);
  upper->begin = upper->end = node->begin;
  for (const PrefixKey& key : upper->keys) upper->end += key.span;
  upper->num_locks = node->num_locks;
  upper->last_used = node->last_used;
  const int first_page = node->begin / page_size_;
  const int upper_pages = ceil_div(upper->end, page_size_) - first_page;
  const int lower_first = upper->end / page_size_ - first_page;
  upper->pages.assign(node->pages.begin(), node->pages.begin() + upper_pages);
  Node* result = upper.get();
  result->children.emplace(node->keys[num_keys], nullptr);

  for (int i = lower_first; i < upper_pages; ++i) {
    const PageId shared = node->pages[static_cast<std::size_t>(i)];
    allocator_.retain(shared);
    ++held_[static_cast<std::size_t>(shared.value())];
    ++num_page_references_;
  }
  node->pages.erase(node->pages.begin(), node->pages.begin() + lower_first);
  node->keys.erase(node->keys.begin(), node->keys.begin() + cut);
  node->begin = upper->end;
  std::unique_ptr<Node>& place = node->parent->children.at(upper->keys.front());
  std::unique_ptr<Node> lower = std::exchange(place, std::move(upper));
  lower->parent = result;
  result->children.begin()->second = std::move(lower);
  ++num_nodes_;
  return result;
}

PrefixCache::Match PrefixCache::match(std::int32_t adapter, std::span<const PrefixKey> keys,
                                      int max_positions) {
  Node* root = root_of(adapter);
  if (root == nullptr) return {};
  const Walk at = walk(root, keys, max_positions);
  if (at.num_positions == 0) return {};
  Match match;
  match.num_positions = at.num_positions;
  match.pages.resize(static_cast<std::size_t>(ceil_div(at.num_positions, page_size_)), PageId{-1});
  match.node = split(at.node, at.num_keys);
  touch(match.node);
  // The deepest node's copy of a page counts: it holds the earlier positions as well.
  for (Node* node = match.node; node != nullptr && !node->is_root(); node = node->parent) {
    const auto first = static_cast<std::size_t>(node->begin / page_size_);
    for (std::size_t i = 0; i < node->pages.size(); ++i) {
      PageId& place = match.pages[first + i];
      if (place.value() < 0) place = node->pages[i];
    }
    unlist(node);
    ++node->num_locks;
  }
  for (const PageId page : match.pages) allocator_.retain(page);
  return match;
}

void PrefixCache::unlock(Node* node) noexcept {
  for (; node != nullptr && !node->is_root(); node = node->parent) {
    FOVEA_CHECK(node->num_locks > 0, "a node of positions {}..{} is not locked", node->begin,
                node->end);
    --node->num_locks;
    list(node);
  }
}

void PrefixCache::insert(std::int32_t adapter, std::span<const PrefixKey> keys,
                         std::span<const PageId> pages) {
  if (keys.empty()) return;
  Node* root = root_of(adapter);
  if (root == nullptr) {
    auto made = std::make_unique<Node>();
    made->adapter = adapter;
    root = made.get();
    roots_.emplace(adapter, std::move(made));
  }
  int num_positions = 0;
  for (const PrefixKey& key : keys) num_positions += key.span;
  const Walk at = walk(root, keys, num_positions);
  if (at.keys_used == keys.size()) {
    touch(at.node);
    return;
  }
  Node* parent = at.node->is_root() ? at.node : split(at.node, at.num_keys);
  FOVEA_CHECK(static_cast<int>(pages.size()) * page_size_ >= num_positions,
              "{} pages for {} positions", pages.size(), num_positions);
  std::unique_ptr<Node> node = make_node(parent);
  node->adapter = adapter;
  node->keys.assign(keys.begin() + static_cast<std::ptrdiff_t>(at.keys_used), keys.end());
  node->begin = at.num_positions;
  node->end = num_positions;
  const int first_page = node->begin / page_size_, end_page = ceil_div(node->end, page_size_);
  node->pages.reserve(static_cast<std::size_t>(end_page - first_page));
  Node* added = node.get();
  std::unique_ptr<Node>& place = parent->children[added->keys.front()];
  for (int i = first_page; i < end_page; ++i) {
    const PageId page = pages[static_cast<std::size_t>(i)];
    allocator_.retain(page);
    hold(*added, page);
  }
  ++num_nodes_;
  unlist(parent);
  place = std::move(node);
  touch(added);
  list(added);
}

void PrefixCache::remove_leaf(Node* leaf) noexcept {
  unlist(leaf);
  for (const PageId page : leaf->pages) {
    --held_[static_cast<std::size_t>(page.value())];
    allocator_.release(page);
  }
  num_page_references_ -= static_cast<int>(leaf->pages.size());
  --num_nodes_;
  Node* parent = leaf->parent;
  const PrefixKey first = leaf->keys.front();  // the leaf and its keys go with the entry
  parent->children.erase(first);
  list(parent);
}

// Every page of the leaf, and of what could go after it, is held by a sequence as well.
bool PrefixCache::frees_nothing(const Node& leaf) const noexcept {
  const auto is_held = [this](PageId page) {
    return allocator_.num_references(page) > held_[static_cast<std::size_t>(page.value())];
  };
  for (const Node* node = &leaf; !node->is_root() && node->num_locks == 0; node = node->parent) {
    if (!std::ranges::all_of(node->pages, is_held)) return false;
  }
  return true;
}

int PrefixCache::evict(int num_pages) noexcept {
  const int free_before = allocator_.num_free();
  auto next = evictable_.begin();
  while (next != evictable_.end() && allocator_.num_free() - free_before < num_pages) {
    Node* leaf = (next++)->second;
    if (frees_nothing(*leaf)) continue;
    Node* parent = leaf->parent;
    remove_leaf(leaf);
    // What it continued may be a leaf now, and come before all others.
    const auto listed = evictable_.find({parent->last_used, parent});
    if (listed != evictable_.end() && (next == evictable_.end() || *listed < *next)) next = listed;
  }
  return allocator_.num_free() - free_before;
}

void PrefixCache::clear() noexcept {
  while (!evictable_.empty()) remove_leaf(evictable_.begin()->second);
}

void PrefixCache::drop(std::int32_t adapter) noexcept {
  for (bool any = true; any;) {
    any = false;
    for (auto entry = evictable_.begin(); entry != evictable_.end();) {
      Node* leaf = (entry++)->second;
      if (leaf->adapter != adapter) continue;
      remove_leaf(leaf);
      any = true;
    }
  }
  const auto root = roots_.find(adapter);
  if (root != roots_.end() && root->second->children.empty()) roots_.erase(root);
}

}  // namespace fovea
