#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace fovea {

/// What a byte-pair encoding consists of. Ids are not negative; `tokens` names each id and each
/// bytes once.
struct BpeSpec {
  struct Token {
    std::int32_t id;
    std::string bytes;  // not empty
  };
  /// `left` then `right` become `merged`. Lower ranks merge first.
  struct Merge {
    std::int32_t left;
    std::int32_t right;
    std::int32_t merged;
    std::uint32_t rank;
  };
  std::vector<Token>
      tokens;  ///< ordinary tokens; special ones are not here, so that no text becomes one
  std::vector<Merge> merges;   ///< of two merges of one pair the later counts
  bool ignore_merges = false;  ///< a piece that is a token is that token, whatever the merges say
  std::int32_t unknown_id = kNone;  ///< for bytes that are no token; kNone: they are dropped
  bool fuse_unknown = false;        ///< one unknown_id for a run of such bytes

  static constexpr std::int32_t kNone = -1;
};

/// Byte-pair encoding of pieces: repeatedly merges the pair of lowest rank, the leftmost on ties.
/// Immutable: usable from several threads, each with its own Scratch.
class Bpe {
 public:
  explicit Bpe(const BpeSpec& spec);

  /// Memory of one caller, kept between pieces.
  struct Scratch {
    struct Symbol {
      std::int32_t id;
      std::uint32_t rank;  // of the merge with the next symbol
      std::uint32_t previous;
      std::uint32_t next;
    };
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> heap;  // rank << 32 | index of the left symbol
  };

  /// Appends the ids of `piece` to `ids`. O(n log n), also for one piece of many megabytes.
  void encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const;

  /// The token of exactly these bytes, or kNone.
  std::int32_t find(std::string_view bytes) const;

 private:
  struct MergeSlot {
    std::uint64_t pair = kEmptyPair;  // left << 32 | right
    std::uint32_t rank = kNoRank;
    std::int32_t merged = BpeSpec::kNone;
  };
  struct TokenSlot {
    std::uint32_t hash = 0;
    std::int32_t id = BpeSpec::kNone;
    std::uint32_t begin = 0;  // into blob_
    std::uint32_t length : 31 = 0;
    std::uint32_t is_whole : 1 = 0;  // encoding these bytes as a piece gives this one id
  };
  static constexpr std::uint64_t kEmptyPair = ~std::uint64_t{0};
  static constexpr std::uint32_t kNoRank = ~std::uint32_t{0};

  void add_tokens(const std::vector<BpeSpec::Token>& tokens);
  void add_merges(const std::vector<BpeSpec::Merge>& merges);
  void mark_whole_tokens();
  const TokenSlot* find_slot(std::string_view bytes) const;
  const MergeSlot& merge_of(std::int32_t left, std::int32_t right) const;
  std::size_t place_symbols(std::string_view piece, Scratch& scratch) const;
  std::size_t merge_short(Scratch& scratch, std::size_t count) const;
  void merge_long(Scratch& scratch, std::size_t count) const;
  void encode_by_merges(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const;

  std::string blob_;               // the bytes of all tokens
  std::vector<TokenSlot> tokens_;  // open addressing, a power of two, at most half full
  std::vector<MergeSlot> merges_;  // the same
  MergeSlot no_merge_;
  std::array<std::int32_t, 256> byte_ids_{};
  std::int32_t unknown_id_;
  bool fuse_unknown_;
};

}  // namespace fovea
