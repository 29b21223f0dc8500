#include "backend/portable/device_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/int4_row.h"
#include "base/error.h"
#include "base/math.h"
#include "base/try.h"
#include "kernels/int4_tile.h"
#include "tensor/half.h"

namespace fovea::portable {
namespace {

constexpr float kLargestF8 = 448.0f;
constexpr std::size_t kChunkBytes = std::size_t{8} << 20;  // converted and sent at a time

// Bytes in a mapped file need not be aligned.
float element(const TensorView& weight, std::int64_t index) {
  const std::byte* at = weight.data + static_cast<std::size_t>(index) * dtype_size(weight.dtype);
  if (weight.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  if (weight.dtype == DType::kF8E4M3) return f8e4m3_to_f32(std::to_integer<std::uint8_t>(*at));
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return weight.dtype == DType::kBf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

void store(float value, DType storage, std::byte* to) {
  if (storage == DType::kF32) {
    std::memcpy(to, &value, sizeof value);
  } else if (storage == DType::kBf16) {
    const std::uint16_t bits = f32_to_bf16(value);
    std::memcpy(to, &bits, sizeof bits);
  } else {
    *to = std::byte{f32_to_f8e4m3(value)};
  }
}

// What one code of each row of a quantised weight counts: the largest magnitude becomes 448.
std::vector<float> quantisation_steps(const TensorView& weight) {
  const std::int64_t rows = weight.shape[0], cols = weight.shape[1];
  std::vector<float> steps;
  for (std::int64_t r = 0; r < rows; ++r) {
    float largest = 0;
    for (std::int64_t c = 0; c < cols; ++c) {
      largest = std::max(largest, std::fabs(element(weight, r * cols + c)));
    }
    const bool is_usable = largest > 0 && std::isfinite(largest);
    steps.push_back(is_usable ? largest / kLargestF8 : 1.0f);
  }
  return steps;
}

// Converts and sends the weight a piece at a time.
void send_converted(const TensorView& weight, std::span<const float> steps, TensorView to,
                    Stream& stream) {
  const std::int64_t cols = weight.shape[1];
  const std::size_t size = dtype_size(to.dtype);
  const std::int64_t rows_at_once = std::max<std::int64_t>(
      1, static_cast<std::int64_t>(kChunkBytes / size) / std::max<std::int64_t>(1, cols));
  std::vector<std::byte> piece;
  for (std::int64_t begin = 0; begin < weight.shape[0]; begin += rows_at_once) {
    const std::int64_t count = std::min(rows_at_once, weight.shape[0] - begin);
    piece.resize(static_cast<std::size_t>(count * cols) * size);
    for (std::int64_t i = 0; i < count * cols; ++i) {
      float value = element(weight, begin * cols + i);
      if (!steps.empty()) value /= steps[static_cast<std::size_t>(begin + i / cols)];
      store(value, to.dtype, piece.data() + static_cast<std::size_t>(i) * size);
    }
    stream.upload(piece, to.rows(begin, count));
  }
}

using kernels::int4_tile;
using kernels::kInt4TileDepth;
using kernels::kInt4TileRows;

// Row `row` of a weight into its place in a row of tiles, which were zeros.
void put_int4_row(const Int4Row& quantised, std::uint32_t row, std::int64_t cols,
                  std::span<int4_tile> tiles) {
  for (std::int64_t g = 0; g < cols / kInt4Group; ++g) {
    const Int4Group& group = quantised.group(g);
    const auto begin = static_cast<std::uint32_t>(g * kInt4Group);
    int4_tile& tile = tiles[begin / kInt4TileDepth];
    tile.scales[row % kInt4TileRows * 4 + begin % kInt4TileDepth / 16] = {group.scale};
    for (std::uint32_t i = 0; i < kInt4Group; ++i) {
      const auto code = static_cast<std::uint32_t>(group.codes[i] + 8);
      tile.codes[kernels::int4_word(row, begin + i)] |= code << kernels::int4_shift(begin + i);
    }
  }
}

}  // namespace

Result<std::unique_ptr<const Matrix>> DeviceMatrix::pack_int4(const MatrixSource& source,
                                                              Device& device, Stream& stream,
                                                              ThreadPool& pool) {
  const TensorView& weight = source.weight;
  FOVEA_CHECK(weight.shape.rank() == 2, "weight {}", weight.shape.to_string());
  const std::int64_t rows = weight.shape[0], cols = weight.shape[1];
  if (!fits_int4(cols)) {
    return error(ErrorCode::kUnsupported, "rows of {} cannot be stored in 4 bits", cols);
  }
  const std::int64_t row_tiles = ceil_div(rows, std::int64_t{kInt4TileRows});
  const auto depth_tiles = static_cast<std::size_t>(ceil_div(cols, std::int64_t{kInt4TileDepth}));
  std::vector<int4_tile> tiles(static_cast<std::size_t>(row_tiles) * depth_tiles);
  std::vector<float> steps(static_cast<std::size_t>(rows));
  std::vector<Int4Row> of_thread(static_cast<std::size_t>(pool.num_threads()));
  pool.parallel_for(row_tiles, [&](std::int64_t index, int thread) {
    Int4Row& quantised = of_thread[static_cast<std::size_t>(thread)];
    const std::span<int4_tile> to =
        std::span(tiles).subspan(static_cast<std::size_t>(index) * depth_tiles, depth_tiles);
    const std::int64_t begin = index * kInt4TileRows;
    for (std::int64_t row = begin; row < std::min(rows, begin + kInt4TileRows); ++row) {
      quantised.quantise(source, row);
      put_int4_row(quantised, static_cast<std::uint32_t>(row), cols, to);
      steps[static_cast<std::size_t>(row)] = quantised.step();
    }
  });
  std::unique_ptr<DeviceMatrix> matrix(new DeviceMatrix(DType::kInt4, weight.shape));
  const auto bytes = std::as_bytes(std::span(tiles));
  FOVEA_TRY(matrix->weight_,
            Tensor::create(device, DType::kU8, {static_cast<std::int64_t>(bytes.size())}));
  FOVEA_TRY(matrix->scale_, Tensor::create(device, DType::kF32, {rows}));
  matrix->has_scale_ = true;
  stream.upload(bytes, matrix->weight_.view());
  stream.upload(std::as_bytes(std::span(steps)), matrix->scale_.view());
  FOVEA_TRY_STATUS(stream.synchronize());
  return std::unique_ptr<const Matrix>(std::move(matrix));
}

std::unique_ptr<const Matrix> DeviceMatrix::of_f8(Tensor weight, Tensor scale) {
  std::unique_ptr<DeviceMatrix> matrix(new DeviceMatrix(DType::kF8E4M3, weight.view().shape));
  matrix->weight_ = std::move(weight);
  matrix->scale_ = std::move(scale);
  matrix->has_scale_ = true;
  return matrix;
}

Result<std::unique_ptr<const Matrix>> DeviceMatrix::pack(const MatrixSource& source, DType storage,
                                                         Device& device, Stream& stream) {
  const TensorView& weight = source.weight;
  FOVEA_CHECK(weight.shape.rank() == 2, "weight {}", weight.shape.to_string());
  if (storage != DType::kF32 && storage != DType::kBf16 && storage != DType::kF8E4M3) {
    return error(ErrorCode::kUnsupported, "weights cannot be stored as {}", dtype_name(storage));
  }
  std::unique_ptr<DeviceMatrix> matrix(new DeviceMatrix(storage, weight.shape));
  FOVEA_TRY(matrix->weight_, Tensor::create(device, storage, weight.shape));
  const bool quantises = storage == DType::kF8E4M3 && weight.dtype != DType::kF8E4M3;
  std::vector<float> scale;
  std::vector<float> steps;
  if (quantises) scale = steps = quantisation_steps(weight);
  if (!source.row_scale.empty()) {
    scale.resize(static_cast<std::size_t>(weight.shape[0]), 1.0f);
    const float* factors = source.row_scale.as<float>();
    for (std::size_t r = 0; r < scale.size(); ++r) scale[r] *= factors[r];
  }
  if (weight.dtype == storage) {
    stream.upload({weight.data, weight.size_bytes()}, matrix->weight_.view());
  } else {
    send_converted(weight, steps, matrix->weight_.view(), stream);
  }
  if (!scale.empty()) {
    FOVEA_TRY(matrix->scale_, Tensor::create(device, DType::kF32, {weight.shape[0]}));
    stream.upload(std::as_bytes(std::span(scale)), matrix->scale_.view());
    matrix->has_scale_ = true;
  }
  FOVEA_TRY_STATUS(stream.synchronize());
  return std::unique_ptr<const Matrix>(std::move(matrix));
}

}  // namespace fovea::portable
