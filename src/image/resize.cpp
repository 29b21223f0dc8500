#include "image/resize.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

#include "base/check.h"
#include "base/math.h"
#include "image/lanczos.h"
#include "image/transpose.h"
#include "image/weigh_rows.h"

namespace fovea {
namespace {

constexpr std::ptrdiff_t kChannels = 3;

// Rows that the horizontal pass works on together. It lays them out column by column, [3 * width,
// kBlockRows] bytes: then it too is a weighted sum of byte rows, and needs no kernel of its own.
constexpr int kBlockRows = 32;

struct RowRange {
  int begin;
  int end;
};

// Unlike a vector it isn't cleared first: every byte is written anyway.
std::unique_ptr<std::uint8_t[]> uninitialised(std::ptrdiff_t num_bytes) {
  return std::make_unique_for_overwrite<std::uint8_t[]>(static_cast<std::size_t>(num_bytes));
}

// Resizes rows [rows.begin, rows.end) of `image` to `width`: [rows.end - rows.begin, width, 3].
std::unique_ptr<std::uint8_t[]> resize_width(const Image& image, RowRange rows, int width,
                                             ThreadPool& pool) {
  const PassWeights pass = lanczos_weights(image.width, width);
  const WeighRows weigh_rows = best_weigh_rows();
  const std::ptrdiff_t in_stride = kChannels * image.width;
  const std::ptrdiff_t out_stride = kChannels * width;
  const int num_rows = rows.end - rows.begin;
  auto out = uninitialised(num_rows * out_stride);

  std::vector<std::unique_ptr<std::uint8_t[]>> scratch(
      static_cast<std::size_t>(pool.num_threads()));
  pool.parallel_for(ceil_div(num_rows, kBlockRows), [&](std::int64_t block, int thread_idx) {
    const int row_begin = static_cast<int>(block) * kBlockRows;
    const int block_rows = std::min(kBlockRows, num_rows - row_begin);
    auto& buffer = scratch[static_cast<std::size_t>(thread_idx)];
    // Cleared, because the last block may leave lanes unused, which are summed up all the same.
    if (!buffer) {
      buffer = std::make_unique<std::uint8_t[]>(
          static_cast<std::size_t>(kBlockRows * (in_stride + out_stride)));
    }
    std::uint8_t* columns = buffer.get();
    std::uint8_t* out_columns = columns + kBlockRows * in_stride;
    transpose_bytes(image.rgb.data() + (rows.begin + row_begin) * in_stride, in_stride, block_rows,
                    static_cast<int>(in_stride), columns, kBlockRows);
    constexpr std::ptrdiff_t kPixel = kChannels * kBlockRows;
    for (int x = 0; x < width; ++x) {
      const auto index = static_cast<std::size_t>(x);
      weigh_rows(columns + pass.first[index] * kPixel, kPixel, pass.pairs_of(x),
                 pass.num_taps[index], out_columns + x * kPixel, kPixel);
    }
    transpose_bytes(out_columns, kBlockRows, static_cast<int>(out_stride), block_rows,
                    out.get() + row_begin * out_stride, out_stride);
  });
  return out;
}

}  // namespace

void resize_lanczos_rows(const Image& image, int width, int height, ThreadPool& pool,
                         const std::function<void(int, const std::uint8_t*)>& sink) {
  FOVEA_CHECK(image.width > 0 && image.height > 0 && width > 0 && height > 0);
  const std::ptrdiff_t stride = kChannels * width;
  PassWeights pass;
  RowRange rows{0, image.height};
  if (height != image.height) {
    // Only the rows that some output row looks at go through the horizontal pass.
    pass = lanczos_weights(image.height, height);
    rows = {pass.first.front(), pass.first.back() + pass.num_taps.back()};
  }
  std::unique_ptr<std::uint8_t[]> resized;
  const std::uint8_t* source = image.rgb.data() + rows.begin * kChannels * image.width;
  if (width != image.width) {
    resized = resize_width(image, rows, width, pool);
    source = resized.get();
  }
  if (height == image.height) {
    pool.parallel_for(height,
                      [&](std::int64_t y, int) { sink(static_cast<int>(y), source + y * stride); });
    return;
  }
  const WeighRows weigh_rows = best_weigh_rows();
  const auto row_bytes = static_cast<std::size_t>(stride);
  std::vector<std::vector<std::uint8_t>> scratch(static_cast<std::size_t>(pool.num_threads()));
  pool.parallel_for(height, [&](std::int64_t y, int thread_idx) {
    auto& row = scratch[static_cast<std::size_t>(thread_idx)];
    row.resize(row_bytes);
    const auto index = static_cast<std::size_t>(y);
    weigh_rows(source + (pass.first[index] - rows.begin) * stride, stride,
               pass.pairs_of(static_cast<int>(y)), pass.num_taps[index], row.data(), row_bytes);
    sink(static_cast<int>(y), row.data());
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
