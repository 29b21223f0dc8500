#include "backend/cuda/widened_prompts.h"

#include <algorithm>

#include "base/math.h"

namespace fovea::cuda {
namespace {

// Ten prompts with a picture of Moondream 2; one sequence may need more.
constexpr std::size_t kScratchBytes = std::size_t{64} << 20;

}  // namespace

void WidenedPrompts::plan(const AttentionBatch& batch, int page_size, std::size_t page_bytes,
                          int tile_rows, int most_decoded) {
  groups_.clear();
  table_.assign(batch.page_table.size(), -1);
  page_bytes_ = page_bytes;
  num_pages_ = static_cast<int>(kScratchBytes / (2 * page_bytes));
  const int most = num_pages_;
  int used = 0, next_tile = 0;
  for (std::size_t s = 0; s < batch.context_len.size(); ++s) {
    const int rows = batch.query_start[s + 1] - batch.query_start[s];
    if (rows <= most_decoded) continue;
    const int pages = ceil_div(batch.context_len[s], page_size);
    if (groups_.empty() || used + pages > most) {
      groups_.push_back({static_cast<int>(s), 0, next_tile, 0});
      used = 0;
    }
    Group& group = groups_.back();
    const int tiles = ceil_div(rows, tile_rows);
    group.num_sequences = static_cast<int>(s) + 1 - group.first_sequence;
    group.num_tiles += tiles;
    next_tile += tiles;
    const auto row = table_.begin() + static_cast<std::ptrdiff_t>(s) * batch.max_pages;
    for (int p = 0; p < pages; ++p) row[p] = used + p;
    used += pages;
    num_pages_ = std::max(num_pages_, used);
  }
}

std::byte* WidenedPrompts::memory(portable::Launcher& launcher, Stream& stream) {
  return memory_.get(launcher, stream, 2 * static_cast<std::size_t>(num_pages_) * page_bytes_);
}

}  // namespace fovea::cuda
