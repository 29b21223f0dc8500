#include "io/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

namespace fovea {
namespace {

// Pieces of at most this many symbols scan for the lowest rank: faster than a heap. A word has
// about six.
constexpr std::size_t kShortSymbols = 64;
// Longer pieces are cut, so that 32-bit indices do.
constexpr std::size_t kMaxPieceBytes = std::size_t{1} << 30;
constexpr std::uint32_t kEnd = ~std::uint32_t{0};

// Odd constants with well-mixed bits: 2^64 divided by the golden ratio, and a prime near it.
constexpr std::uint64_t kMix = 0x9e3779b97f4a7c15u;
constexpr std::uint64_t kMix2 = 0xd6e8feb86659fd93u;

std::uint64_t hash_pair(std::uint64_t pair) {
  pair *= kMix;
  return (pair ^ pair >> 32) * kMix2 >> 24;
}

std::uint64_t hash_bytes(std::string_view bytes) {
  std::uint64_t hash = bytes.size() * kMix;
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t chunk;
    std::memcpy(&chunk, bytes.data() + i, 8);
    hash = (hash ^ chunk) * kMix;
    hash ^= hash >> 29;
  }
  std::uint64_t tail = 0;
  for (unsigned shift = 0; i < bytes.size(); ++i, shift += 8) {
    tail |= std::uint64_t{static_cast<std::uint8_t>(bytes[i])} << shift;
  }
  hash = (hash ^ tail) * kMix2;
  return hash ^ hash >> 32;
}

std::size_t table_size(std::size_t entries) { return std::bit_ceil(2 * entries + 2); }

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

Bpe::Bpe(const BpeSpec& spec) : unknown_id_(spec.unknown_id), fuse_unknown_(spec.fuse_unknown) {
  byte_ids_.fill(BpeSpec::kNone);
  add_tokens(spec.tokens);
  add_merges(spec.merges);
  if (spec.ignore_merges) {
    for (TokenSlot& slot : tokens_) slot.is_whole = 1;
  } else {
    mark_whole_tokens();
  }
}

void Bpe::add_tokens(const std::vector<BpeSpec::Token>& tokens) {
  tokens_.resize(table_size(tokens.size()));
  for (const BpeSpec::Token& token : tokens) {
    if (token.bytes.size() == 1) byte_ids_[static_cast<std::uint8_t>(token.bytes[0])] = token.id;
    const std::uint64_t hash = hash_bytes(token.bytes);
    std::size_t at = hash & (tokens_.size() - 1);
    while (tokens_[at].id != BpeSpec::kNone) at = (at + 1) & (tokens_.size() - 1);
    TokenSlot& slot = tokens_[at];
    slot.hash = static_cast<std::uint32_t>(hash >> 32);
    slot.id = token.id;
    slot.begin = static_cast<std::uint32_t>(blob_.size());
    slot.length = static_cast<std::uint32_t>(token.bytes.size()) & 0x7fffffffu;
    blob_ += token.bytes;
  }
}

void Bpe::add_merges(const std::vector<BpeSpec::Merge>& merges) {
  merges_.resize(table_size(merges.size()));
  for (const BpeSpec::Merge& merge : merges) {
    const std::uint64_t pair = pair_key(merge.left, merge.right);
    std::size_t at = hash_pair(pair) & (merges_.size() - 1);
    while (merges_[at].pair != kEmptyPair && merges_[at].pair != pair)
      at = (at + 1) & (merges_.size() - 1);
    merges_[at] = {pair, merge.rank, merge.merged};
  }
}

// Most pieces of real text are tokens, and most tokens are what their bytes merge to: found once
// here, such pieces need one look-up instead of a merge loop.
void Bpe::mark_whole_tokens() {
  Scratch scratch;
  std::vector<TokenId> ids;
  for (TokenSlot& slot : tokens_) {
    if (slot.id == BpeSpec::kNone) continue;
    ids.clear();
    encode_by_merges(std::string_view(blob_).substr(slot.begin, slot.length), scratch, ids);
    slot.is_whole = ids.size() == 1 && ids[0].value() == slot.id ? 1 : 0;
  }
}

const Bpe::TokenSlot* Bpe::find_slot(std::string_view bytes) const {
  const std::uint64_t hash = hash_bytes(bytes);
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  for (std::size_t at = hash & (tokens_.size() - 1);; at = (at + 1) & (tokens_.size() - 1)) {
    const TokenSlot& slot = tokens_[at];
    if (slot.id == BpeSpec::kNone) return nullptr;
    if (slot.hash == tag && slot.length == bytes.size() &&
        std::memcmp(blob_.data() + slot.begin, bytes.data(), bytes.size()) == 0) {
      return &slot;
    }
  }
}

std::int32_t Bpe::find(std::string_view bytes) const {
  const TokenSlot* slot = find_slot(bytes);
  return slot != nullptr ? slot->id : BpeSpec::kNone;
}

const Bpe::MergeSlot& Bpe::merge_of(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_key(left, right);
  for (std::size_t at = hash_pair(pair) & (merges_.size() - 1);;
       at = (at + 1) & (merges_.size() - 1)) {
    if (merges_[at].pair == pair) return merges_[at];
    if (merges_[at].pair == kEmptyPair) return no_merge_;
  }
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const {
  const TokenSlot* slot = find_slot(piece);
  if (slot != nullptr && slot->is_whole != 0) {
    ids.emplace_back(slot->id);
    return;
  }
  while (piece.size() > kMaxPieceBytes) {
    encode_by_merges(piece.substr(0, kMaxPieceBytes), scratch, ids);
    piece.remove_prefix(kMaxPieceBytes);
  }
  encode_by_merges(piece, scratch, ids);
}

void Bpe::encode_by_merges(std::string_view piece, Scratch& scratch,
                           std::vector<TokenId>& ids) const {
  std::size_t count = place_symbols(piece, scratch);
  if (count <= kShortSymbols) {
    count = merge_short(scratch, count);
    for (std::size_t i = 0; i < count; ++i) ids.emplace_back(scratch.symbols[i].id);
    return;
  }
  merge_long(scratch, count);
  for (std::uint32_t i = 0; i != kEnd; i = scratch.symbols[i].next)
    ids.emplace_back(scratch.symbols[i].id);
}

// One symbol a byte. Bytes that are no token become the unknown token or nothing, as in the PyPI
// package `tokenizers`.
std::size_t Bpe::place_symbols(std::string_view piece, Scratch& scratch) const {
  if (scratch.symbols.size() < piece.size()) scratch.symbols.resize(piece.size());
  std::size_t count = 0;
  bool after_unknown = false;
  for (const char c : piece) {
    const std::int32_t id = byte_ids_[static_cast<std::uint8_t>(c)];
    const bool unknown = id == BpeSpec::kNone;
    if (!unknown) {
      scratch.symbols[count++].id = id;
    } else if (unknown_id_ != BpeSpec::kNone && !(after_unknown && fuse_unknown_)) {
      scratch.symbols[count++].id = unknown_id_;
    }
    after_unknown = unknown;
  }
  for (std::size_t i = 0; i + 1 < count; ++i) {
    scratch.symbols[i].rank = merge_of(scratch.symbols[i].id, scratch.symbols[i + 1].id).rank;
  }
  if (count > 0) scratch.symbols[count - 1].rank = kNoRank;
  return count;
}

// Merges symbols[0, count) in place, keeping them dense. Returns the new count.
std::size_t Bpe::merge_short(Scratch& scratch, std::size_t count) const {
  auto* symbols = scratch.symbols.data();
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (symbols[i].rank < symbols[best].rank) best = i;
    }
    if (symbols[best].rank == kNoRank) break;
    symbols[best].id = merge_of(symbols[best].id, symbols[best + 1].id).merged;
    std::move(symbols + best + 2, symbols + count, symbols + best + 1);
    --count;
    symbols[best].rank =
        best + 1 < count ? merge_of(symbols[best].id, symbols[best + 1].id).rank : kNoRank;
    if (best > 0) symbols[best - 1].rank = merge_of(symbols[best - 1].id, symbols[best].id).rank;
  }
  return count;
}

// Merges symbols[0, count) as a linked list that begins at 0. Entries of the heap whose rank is no
// longer their symbol's are stale: a symbol only ever grows, so a rank never comes back to it.
void Bpe::merge_long(Scratch& scratch, std::size_t count) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  heap.clear();
  for (std::size_t i = 0; i < count; ++i) {
    symbols[i].previous = i == 0 ? kEnd : static_cast<std::uint32_t>(i - 1);
    symbols[i].next = i + 1 == count ? kEnd : static_cast<std::uint32_t>(i + 1);
    if (symbols[i].rank != kNoRank) heap.push_back(std::uint64_t{symbols[i].rank} << 32 | i);
  }
  const std::greater<> later;
  std::make_heap(heap.begin(), heap.end(), later);
  const auto update = [&](std::uint32_t i) {
    auto& symbol = symbols[i];
    symbol.rank = symbol.next == kEnd ? kNoRank : merge_of(symbol.id, symbols[symbol.next].id).rank;
    if (symbol.rank == kNoRank) return;
    heap.push_back(std::uint64_t{symbol.rank} << 32 | i);
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    const std::uint64_t top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), later);
    heap.pop_back();
    const auto at = static_cast<std::uint32_t>(top);
    auto& left = symbols[at];
    if (left.rank != top >> 32) continue;
    auto& right = symbols[left.next];
    left.id = merge_of(left.id, right.id).merged;
    right.rank = kNoRank;
    left.next = right.next;
    if (left.next != kEnd) symbols[left.next].previous = at;
    update(at);
    if (left.previous != kEnd) update(left.previous);
  }
}

}  // namespace fovea
