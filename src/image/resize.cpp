#include "image/resize.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>

#include "base/check.h"
#include "image/lanczos.h"
#include "image/transpose.h"
#include "image/weigh_rows.h"

namespace fovea {
namespace {

using RowSink = std::function<void(int, const std::uint8_t*)>;

constexpr std::ptrdiff_t kChannels = 3;

// Rows that the horizontal pass works on together. It lays them out column by column, [3 * width,
// kBlockRows] bytes: then it too is a weighted sum of byte rows, and needs no kernel of its own.
constexpr int kBlockRows = 32;

// Not cleared, unlike a vector: every byte that matters is written first.
std::unique_ptr<std::uint8_t[]> uninitialised(std::ptrdiff_t num_bytes) {
  return std::make_unique_for_overwrite<std::uint8_t[]>(static_cast<std::size_t>(num_bytes));
}

// What a resize consists of. A pass whose direction keeps its size is left out, as in Pillow.
struct Passes {
  const Image& image;
  int width;   // of the result
  int height;  // of the result
  std::optional<PassWeights> horizontal;
  std::optional<PassWeights> vertical;
  WeighRows weigh_rows = best_weigh_rows();

  std::ptrdiff_t in_stride() const { return kChannels * image.width; }
  std::ptrdiff_t out_stride() const { return kChannels * width; }
  const std::uint8_t* in_row(int y) const { return image.rgb.data() + y * in_stride(); }

  // Input rows that output row y looks at.
  int first_row(int y) const { return vertical ? vertical->first[static_cast<std::size_t>(y)] : y; }
  int num_rows(int y) const {
    return vertical ? vertical->num_taps[static_cast<std::size_t>(y)] : 1;
  }
};

// Brings rows of the picture to the new width.
class HorizontalPass {
 public:
  explicit HorizontalPass(const Passes& passes)
      : passes_(passes),
        // Cleared, because a last block of fewer rows leaves lanes unused, which are summed up all
        // the same.
        columns_(std::make_unique<std::uint8_t[]>(
            static_cast<std::size_t>(kBlockRows * passes.in_stride()))),
        out_columns_(uninitialised(kBlockRows * passes.out_stride())) {}

  // Rows [begin, begin + num_rows) of the picture to `out` [num_rows, width, 3]; num_rows <=
  // kBlockRows.
  void run(int begin, int num_rows, std::uint8_t* out) {
    const PassWeights& pass = *passes_.horizontal;
    transpose_bytes(passes_.in_row(begin), passes_.in_stride(), num_rows,
                    static_cast<int>(passes_.in_stride()), columns_.get(), kBlockRows);
    constexpr std::ptrdiff_t kPixel = kChannels * kBlockRows;
    for (int x = 0; x < passes_.width; ++x) {
      const auto index = static_cast<std::size_t>(x);
      passes_.weigh_rows(columns_.get() + pass.first[index] * kPixel, kPixel, pass.pairs_of(x),
                         pass.num_taps[index], out_columns_.get() + x * kPixel, kPixel);
    }
    transpose_bytes(out_columns_.get(), kBlockRows, static_cast<int>(passes_.out_stride()),
                    num_rows, out, passes_.out_stride());
  }

 private:
  const Passes& passes_;
  std::unique_ptr<std::uint8_t[]> columns_;
  std::unique_ptr<std::uint8_t[]> out_columns_;
};

// A window over the rows that the horizontal pass has produced, moved down the picture. Only as
// many rows are kept as one output row needs: they stay in the cache, and no picture in between is
// ever written to memory.
class RowWindow {
 public:
  RowWindow(const Passes& passes, int max_rows)
      : passes_(passes),
        pass_(passes),
        rows_(uninitialised((max_rows + kBlockRows) * passes.out_stride())) {}

  // Rows [begin, end), at most max_rows of them, contiguous. `begin` never decreases from call to
  // call.
  const std::uint8_t* rows(int begin, int end) {
    while (end > end_) {
      drop_before(begin);
      const int num_rows = std::min(kBlockRows, passes_.image.height - end_);
      pass_.run(end_, num_rows, at(end_));
      end_ += num_rows;
    }
    return at(begin);
  }

 private:
  std::uint8_t* at(int row) { return rows_.get() + (row - begin_) * passes_.out_stride(); }

  void drop_before(int row) {
    if (row >= end_) {
      begin_ = end_ = row;
      return;
    }
    std::memmove(rows_.get(), at(row),
                 static_cast<std::size_t>((end_ - row) * passes_.out_stride()));
    begin_ = row;
  }

  const Passes& passes_;
  HorizontalPass pass_;
  std::unique_ptr<std::uint8_t[]> rows_;
  int begin_ = 0;  // rows [begin_, end_) are in rows_
  int end_ = 0;
};

// Output rows [begin, end), in order.
void resize_band(const Passes& passes, int begin, int end, const RowSink& sink) {
  std::optional<RowWindow> window;
  if (passes.horizontal) {
    int max_rows = 1;
    for (int y = begin; y < end; ++y) max_rows = std::max(max_rows, passes.num_rows(y));
    window.emplace(passes, max_rows);
  }
  const auto out = uninitialised(passes.out_stride());
  for (int y = begin; y < end; ++y) {
    const int first = passes.first_row(y);
    const std::uint8_t* rows =
        window ? window->rows(first, first + passes.num_rows(y)) : passes.in_row(first);
    if (!passes.vertical) {
      sink(y, rows);
      continue;
    }
    passes.weigh_rows(rows, passes.out_stride(), passes.vertical->pairs_of(y), passes.num_rows(y),
                      out.get(), static_cast<std::size_t>(passes.out_stride()));
    sink(y, out.get());
  }
}

}  // namespace

void resize_lanczos_rows(const Image& image, int width, int height, ThreadPool& pool,
                         const RowSink& sink) {
  FOVEA_CHECK(image.width > 0 && image.height > 0 && width > 0 && height > 0);
  Passes passes{image, width, height, {}, {}};
  if (width != image.width) passes.horizontal = lanczos_weights(image.width, width);
  if (height != image.height) passes.vertical = lanczos_weights(image.height, height);

  // Neighbouring bands both compute the input rows that both look at, so there are only as many as
  // threads; a band of very few rows would do little else.
  constexpr int kMinBandRows = 32;
  const int num_bands = std::clamp(height / kMinBandRows, 1, pool.num_threads());
  pool.parallel_for(num_bands, [&](std::int64_t band, int) {
    resize_band(passes, static_cast<int>(height * band / num_bands),
                static_cast<int>(height * (band + 1) / num_bands), sink);
  });
}

Image resize_lanczos(const Image& image, int width, int height, ThreadPool& pool) {
  if (width == image.width && height == image.height) return image;
  Image out;
  out.width = width;
  out.height = height;
  const std::size_t row_bytes = 3 * static_cast<std::size_t>(width);
  out.rgb.resize(row_bytes * static_cast<std::size_t>(height));
  resize_lanczos_rows(image, width, height, pool, [&](int y, const std::uint8_t* row) {
    std::memcpy(out.rgb.data() + static_cast<std::size_t>(y) * row_bytes, row, row_bytes);
  });
  return out;
}

}  // namespace fovea
