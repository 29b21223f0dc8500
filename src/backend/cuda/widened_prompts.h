#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/ops.h"
#include "backend/portable/device_memory.h"

namespace fovea::cuda {

/// Which pages of codes are widened to bf16 for attention of prompts, and where to: scratch memory
/// that the sequences of a step take turns in when they are too many for it.
class WidenedPrompts {
 public:
  /// Consecutive sequences that are widened and attended together; so are their tiles.
  struct Group {
    int first_sequence, num_sequences;
    int first_tile, num_tiles;
  };

  explicit WidenedPrompts(Device& device) : memory_(device) {}

  /// Sequences of more than `most_decoded` rows, in tiles of `tile_rows`. page_bytes: of the keys
  /// of a page, widened.
  void plan(const AttentionBatch& batch, int page_size, std::size_t page_bytes, int tile_rows,
            int most_decoded);

  std::span<const Group> groups() const { return groups_; }
  /// [S, max_pages] page in the scratch memory of each logical page, -1 = none.
  std::span<const std::int32_t> page_table() const { return table_; }
  /// Pages that the scratch memory has for the keys, and as many for the values.
  int num_pages() const { return num_pages_; }
  /// The pages of the keys, then those of the values; null when memory ran out.
  std::byte* memory(portable::Launcher& launcher, Stream& stream);

 private:
  portable::GrowingBuffer memory_;
  std::vector<Group> groups_;
  std::vector<std::int32_t> table_;
  std::size_t page_bytes_ = 0;
  int num_pages_ = 0;
};

}  // namespace fovea::cuda
