#include "model/weight_loader.h"

#include <cstring>

#include "base/error.h"
#include "base/try.h"
#include "tensor/half.h"
#include "tensor/int4.h"

namespace fovea {
namespace {

Error wrong_shape(const TensorEntry& entry, const Shape& wanted) {
  return invalid_argument("tensor {}: shape {} found, {} wanted", entry.name,
                          entry.shape.to_string(), wanted.to_string());
}

// Equal but for leading ones: pos_emb is stored [1, 729, 1152].
bool same_shape(const Shape& found, const Shape& wanted) {
  const auto skip = [](const Shape& shape) {
    int first = 0;
    while (first < shape.rank() && shape[first] == 1) ++first;
    return first;
  };
  const int a = skip(found), b = skip(wanted);
  if (found.rank() - a != wanted.rank() - b) return false;
  for (int i = 0; i < found.rank() - a; ++i) {
    if (found[a + i] != wanted[b + i]) return false;
  }
  return true;
}

// The bytes belong to a read-only mapping; views of the kernels' border are not const.
TensorView view_of(const TensorEntry& entry) {
  return {entry.dtype, entry.shape, const_cast<std::byte*>(entry.bytes.data())};
}

Status expect_matrix(const TensorEntry& entry, const Shape& wanted) {
  if (entry.shape != wanted) return wrong_shape(entry, wanted);
  if (entry.dtype != DType::kF32 && entry.dtype != DType::kBf16 && entry.dtype != DType::kF16 &&
      entry.dtype != DType::kF8E4M3) {
    return invalid_argument("tensor {}: element type {} found, a float wanted", entry.name,
                            dtype_name(entry.dtype));
  }
  return {};
}

// Codes of 4 bits in groups of 128 consecutive elements: packed row g holds group g in its high
// nibbles and group g + N in its low ones, N = groups / 2. value = (code - zero_point[g]) *
// scale[g], each step rounded to bf16.
std::vector<std::uint16_t> dequantise_int4(const TensorEntry& packed, std::span<const float> scale,
                                           std::span<const float> zero_point) {
  constexpr std::size_t kGroup = 128;
  const std::size_t half = scale.size() / 2;
  std::vector<std::uint16_t> values(scale.size() * kGroup);
  for (std::size_t g = 0; g < scale.size(); ++g) {
    const std::byte* row = packed.bytes.data() + (g % half) * kGroup;
    const int shift = g < half ? 4 : 0;
    for (std::size_t i = 0; i < kGroup; ++i) {
      const auto code = static_cast<float>((std::to_integer<unsigned>(row[i]) >> shift) & 0xfu);
      values[g * kGroup + i] = f32_to_bf16(round_to_bf16(code - zero_point[g]) * scale[g]);
    }
  }
  return values;
}

}  // namespace

Result<std::vector<float>> to_f32(const TensorEntry& entry) {
  const auto count = static_cast<std::size_t>(entry.shape.num_elements());
  std::vector<float> values(count);
  const std::byte* source = entry.bytes.data();
  const auto convert = [&]<class T>(T, auto&& widen) {
    for (std::size_t i = 0; i < count; ++i) {
      T element;  // bytes in a file need not be aligned
      std::memcpy(&element, source + i * sizeof(T), sizeof(T));
      values[i] = widen(element);
    }
  };
  switch (entry.dtype) {
    case DType::kF32:
      convert(float{}, [](float x) { return x; });
      break;
    case DType::kBf16:
      convert(std::uint16_t{}, bf16_to_f32);
      break;
    case DType::kF16:
      convert(std::uint16_t{}, f16_to_f32);
      break;
    case DType::kF8E4M3:
      convert(std::uint8_t{}, f8e4m3_to_f32);
      break;
    default:
      return invalid_argument("tensor {}: element type {} found, a float wanted", entry.name,
                              dtype_name(entry.dtype));
  }
  return values;
}

WeightLoader::WeightLoader(const TensorTable& table, Device& device, Stream& stream, DType storage,
                           DType block_storage, std::function<void(double)> on_progress)
    : table_(table),
      device_(device),
      stream_(stream),
      storage_(storage),
      block_storage_(block_storage),
      on_progress_(std::move(on_progress)) {}

void WeightLoader::done_with(const TensorEntry& entry) {
  num_parameters_ += entry.shape.num_elements();
  bytes_read_ += entry.bytes.size();
  table_.checkpoint().release(entry.bytes);
  if (on_progress_) {
    on_progress_(static_cast<double>(bytes_read_) /
                 static_cast<double>(table_.checkpoint().total_bytes()));
  }
}

Result<std::unique_ptr<const Matrix>> WeightLoader::pack(const MatrixSource& source,
                                                         DType storage) {
  const bool fits = storage != DType::kInt4 || fits_int4(source.weight.shape[1]);
  FOVEA_TRY(auto matrix, device_.ops().pack(source, fits ? storage : DType::kF8E4M3));
  weight_bytes_ += matrix->size_bytes();
  return matrix;
}

Result<Linear> WeightLoader::linear(std::string_view name, std::int64_t rows, std::int64_t cols) {
  return linear_as(storage_, name, rows, cols);
}

Result<Linear> WeightLoader::block_linear(std::string_view name, std::int64_t rows,
                                          std::int64_t cols) {
  return linear_as(block_storage_, name, rows, cols);
}

Result<Linear> WeightLoader::linear_as(DType storage, std::string_view name, std::int64_t rows,
                                       std::int64_t cols) {
  Linear layer;
  const std::string weight_name = fmt::format("{}.weight", name);
  FOVEA_TRY(const auto found, table_.find(weight_name));
  if (found.entry == nullptr && table_.contains(weight_name + ".packed")) {
    FOVEA_TRY(layer.weight, int4_matrix(weight_name, rows, cols, storage));
  } else {
    FOVEA_TRY(const auto required, table_.require(weight_name));
    FOVEA_TRY_STATUS(expect_matrix(*required.entry, {rows, cols}));
    FOVEA_TRY(layer.weight, pack({view_of(*required.entry), {}}, storage));
    done_with(*required.entry);
  }
  FOVEA_TRY(layer.bias, tensor(fmt::format("{}.bias", name), {rows}));
  return layer;
}

Result<std::unique_ptr<const Matrix>> WeightLoader::int4_matrix(std::string_view name,
                                                                std::int64_t rows,
                                                                std::int64_t cols, DType storage) {
  const std::int64_t elements = rows * cols;
  FOVEA_TRY(const auto packed, table_.require(fmt::format("{}.packed", name)));
  const Shape wanted{elements / 256, 128};
  if (elements % 256 != 0 || packed.entry->shape != wanted)
    return wrong_shape(*packed.entry, wanted);
  if (packed.entry->dtype != DType::kU8) {
    return invalid_argument("tensor {}: element type {} found, u8 wanted", packed.entry->name,
                            dtype_name(packed.entry->dtype));
  }
  FOVEA_TRY(const std::vector<float> scale,
            host_values(fmt::format("{}.scale", name), elements / 128));
  FOVEA_TRY(const std::vector<float> zero_point,
            host_values(fmt::format("{}.zero_point", name), elements / 128));
  std::vector<std::uint16_t> values = dequantise_int4(*packed.entry, scale, zero_point);
  const TensorView view{DType::kBf16, {rows, cols}, reinterpret_cast<std::byte*>(values.data())};
  FOVEA_TRY(auto matrix, pack({view, {}}, storage));
  done_with(*packed.entry);
  num_parameters_ += elements - packed.entry->shape.num_elements();
  return matrix;
}

Result<LayerNorm> WeightLoader::layer_norm(std::string_view name, std::int64_t dim) {
  LayerNorm norm;
  FOVEA_TRY(norm.weight, tensor(fmt::format("{}.weight", name), {dim}));
  FOVEA_TRY(norm.bias, tensor(fmt::format("{}.bias", name), {dim}));
  return norm;
}

Result<Tensor> WeightLoader::tensor(std::string_view name, Shape shape) {
  FOVEA_TRY(const auto found, table_.require(name));
  const TensorEntry& entry = *found.entry;
  const bool transposed = found.legacy_spelling && shape.rank() == 2 && entry.shape.rank() == 2 &&
                          (name == "region.coord_features" || name == "region.size_features");
  const Shape wanted = transposed ? Shape{shape[1], shape[0]} : shape;
  if (transposed ? entry.shape != wanted : !same_shape(entry.shape, wanted))
    return wrong_shape(entry, wanted);
  FOVEA_TRY(std::vector<float> values, to_f32(entry));
  if (transposed) {
    std::vector<float> turned(values.size());
    const auto rows = static_cast<std::size_t>(shape[0]), cols = static_cast<std::size_t>(shape[1]);
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < cols; ++c) turned[r * cols + c] = values[c * rows + r];
    }
    values = std::move(turned);
  }
  done_with(entry);
  return upload(values, shape);
}

Result<Tensor> WeightLoader::table(std::string_view name, Shape shape) {
  FOVEA_TRY(const auto found, table_.require(name));
  const TensorEntry& entry = *found.entry;
  FOVEA_TRY_STATUS(expect_matrix(entry, shape));
  FOVEA_TRY(Tensor result, Tensor::create(device_, storage_, shape));
  std::vector<float> values;
  std::vector<std::uint16_t> rounded;
  std::span<const std::byte> bytes = entry.bytes;
  if (entry.dtype != storage_) {
    FOVEA_TRY(values, to_f32(entry));
    bytes = std::as_bytes(std::span(values));
    if (storage_ == DType::kBf16) {
      for (const float value : values) rounded.push_back(f32_to_bf16(value));
      bytes = std::as_bytes(std::span(rounded));
    }
  }
  stream_.upload(bytes, result.view());
  FOVEA_TRY_STATUS(stream_.synchronize());  // before the host copies go
  weight_bytes_ += result.size_bytes();
  done_with(entry);
  return result;
}

Result<std::vector<std::unique_ptr<const Matrix>>> WeightLoader::experts(
    std::string_view name, std::string_view scale_name, int num_experts, std::int64_t rows,
    std::int64_t cols) {
  FOVEA_TRY(const auto found, table_.require(name));
  const TensorEntry& entry = *found.entry;
  FOVEA_TRY_STATUS(expect_matrix(entry, {num_experts, rows, cols}));
  std::vector<float> scales;
  if (entry.dtype == DType::kF8E4M3) {
    FOVEA_TRY(scales, host_values(scale_name, num_experts * rows));
  }
  // fp8 codes are kept as they are in a 16-bit run unless it wants less; an f32 run is a yardstick
  // and widens everything.
  const bool keeps_codes =
      entry.dtype == DType::kF8E4M3 && storage_ != DType::kF32 && block_storage_ != DType::kInt4;
  const DType storage = keeps_codes ? DType::kF8E4M3 : block_storage_;
  const TensorView all = view_of(entry);
  std::vector<std::unique_ptr<const Matrix>> matrices;
  for (int e = 0; e < num_experts; ++e) {
    MatrixSource source{all.rows(e, 1).reshaped({rows, cols}), {}};
    if (!scales.empty()) {
      source.row_scale = {
          DType::kF32, {rows}, reinterpret_cast<std::byte*>(scales.data() + e * rows)};
    }
    FOVEA_TRY(auto matrix, pack(source, storage));
    matrices.push_back(std::move(matrix));
  }
  done_with(entry);
  return matrices;
}

Result<std::unique_ptr<const Matrix>> WeightLoader::stacked(std::string_view fused_name,
                                                            std::span<const std::string> names,
                                                            std::int64_t rows_each,
                                                            std::int64_t cols) {
  const auto num_parts = static_cast<std::int64_t>(names.size());
  std::vector<float> values;
  if (table_.contains(fused_name)) {
    FOVEA_TRY(const auto found, table_.require(fused_name));
    FOVEA_TRY_STATUS(expect_matrix(*found.entry, {num_parts * rows_each, cols}));
    FOVEA_TRY(values, to_f32(*found.entry));
    done_with(*found.entry);
  } else {
    for (const std::string& name : names) {
      FOVEA_TRY(const auto found, table_.require(name));
      FOVEA_TRY_STATUS(expect_matrix(*found.entry, {rows_each, cols}));
      FOVEA_TRY(const std::vector<float> part, to_f32(*found.entry));
      values.insert(values.end(), part.begin(), part.end());
      done_with(*found.entry);
    }
  }
  const TensorView view{
      DType::kF32, {num_parts * rows_each, cols}, reinterpret_cast<std::byte*>(values.data())};
  return pack({view, {}}, storage_);
}

Result<Tensor> WeightLoader::upload(std::span<const float> values, Shape shape) {
  FOVEA_TRY(Tensor result, Tensor::create(device_, DType::kF32, shape));
  stream_.upload(std::as_bytes(values), result.view());
  FOVEA_TRY_STATUS(stream_.synchronize());
  weight_bytes_ += result.size_bytes();
  return result;
}

Result<std::vector<float>> WeightLoader::host_values(std::string_view name,
                                                     std::int64_t num_elements) {
  FOVEA_TRY(const auto found, table_.require(name));
  if (found.entry->shape.num_elements() != num_elements) {
    return invalid_argument("tensor {}: shape {} found, {} elements wanted", found.entry->name,
                            found.entry->shape.to_string(), num_elements);
  }
  FOVEA_TRY(std::vector<float> values, to_f32(*found.entry));
  done_with(*found.entry);
  return values;
}

}  // namespace fovea
