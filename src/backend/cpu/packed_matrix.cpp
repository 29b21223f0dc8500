#include "backend/cpu/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/math.h"
#include "tensor/half.h"

namespace fovea::cpu {
namespace {

constexpr float kLargestF8 = 448.0f;

float source_value(const TensorView& weight, std::int64_t at) {
  switch (weight.dtype) {
    case DType::kF32:
      return weight.as<float>()[at];
    case DType::kBf16:
      return bf16_to_f32(weight.as<std::uint16_t>()[at]);
    case DType::kF16:
      return f16_to_f32(weight.as<std::uint16_t>()[at]);
    default:
      return f8e4m3_to_f32(weight.as<std::uint8_t>()[at]);
  }
}

// Source row `row` as floats, or as the codes themselves where source and panel agree.
void convert_row(const TensorView& weight, std::int64_t row, std::int64_t cols, float* out) {
  const std::int64_t begin = row * cols;
  switch (weight.dtype) {
    case DType::kF32:
      std::memcpy(out, weight.as<float>() + begin, static_cast<std::size_t>(cols) * sizeof(float));
      return;
    case DType::kBf16: {
      const std::uint16_t* in = weight.as<std::uint16_t>() + begin;
      for (std::int64_t k = 0; k < cols; ++k) out[k] = bf16_to_f32(in[k]);
      return;
    }
    default:
      for (std::int64_t k = 0; k < cols; ++k) out[k] = source_value(weight, begin + k);
  }
}

// One panel of a matrix: rows [row_begin, row_begin + count) of the source side by side.
struct PanelJob {
  const TensorView& weight;
  std::int64_t cols;
  std::int64_t panel_cols;
  std::int64_t row_begin;
  std::int64_t count;
  float* scale;  // of the whole matrix, or null

  void pack_f32(float* out) const {
    for (std::int64_t r = 0; r < panel_cols; ++r) {
      for (std::int64_t k = 0; k < cols; ++k) {
        out[k * panel_cols + r] =
            r < count ? source_value(weight, (row_begin + r) * cols + k) : 0.0f;
      }
    }
  }

  void pack_bf16(std::uint16_t* out, float* row) const {
    std::memset(out, 0, static_cast<std::size_t>(round_up(cols, std::int64_t{2}) * panel_cols) * 2);
    for (std::int64_t r = 0; r < count; ++r) {
      std::uint16_t* column = out + 2 * r;
      if (weight.dtype == DType::kBf16) {
        const std::uint16_t* in = weight.as<std::uint16_t>() + (row_begin + r) * cols;
        for (std::int64_t k = 0; k < cols; ++k) {
          column[(k / 2) * 2 * panel_cols + (k & 1)] = in[k];
        }
      } else {
        convert_row(weight, row_begin + r, cols, row);
        for (std::int64_t k = 0; k < cols; ++k) {
          column[(k / 2) * 2 * panel_cols + (k & 1)] = f32_to_bf16(row[k]);
        }
      }
    }
  }

  void pack_f8(std::uint8_t* out, float* row) const {
    std::memset(out, 0, static_cast<std::size_t>(cols * panel_cols));
    for (std::int64_t r = 0; r < count; ++r) {
      float& row_scale = scale[row_begin + r];
      if (weight.dtype == DType::kF8E4M3) {
        const std::uint8_t* in = weight.as<std::uint8_t>() + (row_begin + r) * cols;
        for (std::int64_t k = 0; k < cols; ++k) {
          const bool is_nan = (in[k] & 0x7f) == 0x7f;
          // The kernels know no NaN codes; a row that holds one gives NaN through its scale.
          if (is_nan) row_scale = std::numeric_limits<float>::quiet_NaN();
          out[k * panel_cols + r] = is_nan ? std::uint8_t{0} : in[k];
        }
        continue;
      }
      convert_row(weight, row_begin + r, cols, row);
      float largest = 0;
      for (std::int64_t k = 0; k < cols; ++k) largest = std::max(largest, std::fabs(row[k]));
      const float step = largest > 0 && std::isfinite(largest) ? largest / kLargestF8 : 1.0f;
      for (std::int64_t k = 0; k < cols; ++k) {
        const std::uint8_t code = f32_to_f8e4m3(row[k] / step);
        if ((code & 0x7f) == 0x7f) row_scale = std::numeric_limits<float>::quiet_NaN();
        out[k * panel_cols + r] = (code & 0x7f) == 0x7f ? std::uint8_t{0} : code;
      }
      row_scale *= step;
    }
  }
};

}  // namespace

std::uint8_t f32_to_f8e4m3(float value) {
  const std::uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7f;
  if (magnitude >= kLargestF8) return sign | 0x7e;
  // Steps of 2^-9 below 2^-6, of 2^(exponent - 3) above: nearbyint rounds ties to even.
  const int exponent = magnitude < 0x1p-6f ? -6 : std::ilogb(magnitude);
  const float steps = std::nearbyint(std::ldexp(magnitude, 3 - exponent));
  // A carry out of the mantissa moves on into the exponent by itself.
  const int code = ((exponent + 6) << 3) + static_cast<int>(steps);
  return static_cast<std::uint8_t>(sign | std::min(code, 0x7e));
}

std::int64_t PackedMatrix::num_panels() const {
  return ceil_div(rows_, std::int64_t{kernels_->panel_cols});
}

std::size_t PackedMatrix::panel_bytes() const {
  const std::int64_t depth = type_ == PanelType::kBf16 ? round_up(cols_, std::int64_t{2}) : cols_;
  const std::int64_t element = type_ == PanelType::kF32 ? 4 : (type_ == PanelType::kBf16 ? 2 : 1);
  return static_cast<std::size_t>(depth * kernels_->panel_cols * element);
}

Result<std::unique_ptr<const Matrix>> PackedMatrix::pack(const MatrixSource& source, DType storage,
                                                         const KernelTable& kernels,
                                                         ThreadPool& pool) {
  const TensorView& weight = source.weight;
  FOVEA_CHECK(weight.shape.rank() == 2, "a weight of shape {}", weight.shape.to_string());
  if (weight.dtype == DType::kI32 || weight.dtype == DType::kU8) {
    return error(ErrorCode::kUnsupported, "a {} matrix cannot be packed", dtype_name(weight.dtype));
  }
  if (storage != DType::kF32 && storage != DType::kBf16 && storage != DType::kF8E4M3) {
    return error(ErrorCode::kUnsupported, "the CPU backend does not store weights as {}",
                 dtype_name(storage));
  }
  const std::int64_t rows = weight.shape[0];
  const std::int64_t cols = weight.shape[1];
  FOVEA_CHECK(source.row_scale.empty() || source.row_scale.num_elements() == rows,
              "{} row scales for {} rows", source.row_scale.num_elements(), rows);
  const PanelType type = storage == DType::kF32    ? PanelType::kF32
                         : storage == DType::kBf16 ? PanelType::kBf16
                                                   : PanelType::kF8;
  std::unique_ptr<PackedMatrix> matrix(new PackedMatrix(kernels, type, rows, cols));
  const std::int64_t num_panels = matrix->num_panels();
  const std::size_t panel_bytes = matrix->panel_bytes();
  const bool scaled = !source.row_scale.empty() || type == PanelType::kF8;
  matrix->panels_ = allocate_aligned(panel_bytes * static_cast<std::size_t>(num_panels));
  AlignedMemory rows_memory = allocate_aligned(static_cast<std::size_t>(cols) * sizeof(float) *
                                               static_cast<std::size_t>(pool.num_threads()));
  const std::size_t scale_bytes = scaled ? static_cast<std::size_t>(rows) * sizeof(float) : 0;
  matrix->scale_memory_ = allocate_aligned(scale_bytes);
  if (matrix->panels_ == nullptr || rows_memory == nullptr || matrix->scale_memory_ == nullptr) {
    return error(ErrorCode::kResourceExhausted, "no memory for a weight of {} x {} in {}", rows,
                 cols, dtype_name(storage));
  }
  float* scale = nullptr;
  if (scaled) {
    scale = reinterpret_cast<float*>(matrix->scale_memory_.get());
    for (std::int64_t r = 0; r < rows; ++r) {
      scale[r] = source.row_scale.empty() ? 1.0f : source.row_scale.as<float>()[r];
    }
  }
  float* row_buffers = reinterpret_cast<float*>(rows_memory.get());
  pool.parallel_for(num_panels, [&](std::int64_t panel, int thread_idx) {
    const std::int64_t begin = panel * kernels.panel_cols;
    const PanelJob job{weight,
                       cols,
                       kernels.panel_cols,
                       begin,
                       std::min<std::int64_t>(kernels.panel_cols, rows - begin),
                       scale};
    std::byte* out = matrix->panels_.get() + panel_bytes * static_cast<std::size_t>(panel);
    float* row = row_buffers + cols * thread_idx;
    if (type == PanelType::kF32) job.pack_f32(reinterpret_cast<float*>(out));
    if (type == PanelType::kBf16) job.pack_bf16(reinterpret_cast<std::uint16_t*>(out), row);
    if (type == PanelType::kF8) job.pack_f8(reinterpret_cast<std::uint8_t*>(out), row);
  });
  matrix->size_bytes_ = panel_bytes * static_cast<std::size_t>(num_panels) + scale_bytes;
  matrix->scale_ = scale;
  return std::unique_ptr<const Matrix>(std::move(matrix));
}

}  // namespace fovea::cpu
