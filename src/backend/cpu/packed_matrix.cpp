#include "backend/cpu/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/int4_row.h"
#include "base/error.h"
#include "base/math.h"
#include "tensor/half.h"

namespace fovea::cpu {
namespace {

constexpr float kLargestF8 = 448.0f;
constexpr std::int64_t kMostPanelCols = 64;

// Elements [begin, begin + count) of the source as floats.
void convert(const TensorView& weight, std::int64_t begin, std::int64_t count, float* out) {
  switch (weight.dtype) {
    case DType::kF32:
      std::memcpy(out, weight.as<float>() + begin, static_cast<std::size_t>(count) * sizeof(float));
      return;
    case DType::kBf16:
      for (std::int64_t i = 0; i < count; ++i) {
        out[i] = bf16_to_f32(weight.as<std::uint16_t>()[begin + i]);
      }
      return;
    case DType::kF16:
      for (std::int64_t i = 0; i < count; ++i) {
        out[i] = f16_to_f32(weight.as<std::uint16_t>()[begin + i]);
      }
      return;
    default:
      for (std::int64_t i = 0; i < count; ++i) {
        out[i] = f8e4m3_to_f32(weight.as<std::uint8_t>()[begin + i]);
      }
  }
}

// One panel of a matrix: rows [row_begin, row_begin + count) of the source side by side. The depth
// is walked in slices, so that the lines of the panel that the rows take turns to fill stay in L1.
struct PanelJob {
  static constexpr std::int64_t kSlice = 256;

  const TensorView& weight;
  std::int64_t cols;
  std::int64_t panel_cols;
  std::int64_t row_begin;
  std::int64_t count;
  float* scale;  // of the whole matrix, or null

  // take(values of one row and slice, k, depth, row) for every row and slice.
  template <class Take>
  void each_slice(const Take& take) const {
    float values[kSlice];
    for (std::int64_t k = 0; k < cols; k += kSlice) {
      const std::int64_t depth = std::min(kSlice, cols - k);
      for (std::int64_t r = 0; r < count; ++r) {
        convert(weight, (row_begin + r) * cols + k, depth, values);
        take(values, k, depth, r);
      }
    }
  }

  void pack_f32(float* out) const {
    if (count < panel_cols) std::fill(out, out + cols * panel_cols, 0.0f);
    each_slice([&](const float* values, std::int64_t k, std::int64_t depth, std::int64_t r) {
      for (std::int64_t i = 0; i < depth; ++i) out[(k + i) * panel_cols + r] = values[i];
    });
  }

  void pack_bf16(std::uint16_t* out) const {
    if (count < panel_cols || cols % 2 != 0) {
      std::fill(out, out + round_up(cols, std::int64_t{2}) * panel_cols, std::uint16_t{0});
    }
    // Slices begin at even depths. A source in bf16 widens and rounds back to itself.
    each_slice([&](const float* values, std::int64_t k, std::int64_t depth, std::int64_t r) {
      std::uint16_t* column = out + k * panel_cols + 2 * r;
      for (std::int64_t i = 0; i < depth; ++i) {
        column[(i / 2) * 2 * panel_cols + (i & 1)] = f32_to_bf16(values[i]);
      }
    });
  }

  // The rows' steps become their scales.
  void pack_int4(const MatrixSource& source, std::byte* out) const {
    std::fill(out, out + cols / kInt4Group * int4_group_bytes(), std::byte{0});
    Int4Row quantised;
    for (std::int64_t r = 0; r < count; ++r) {
      quantised.quantise(source, row_begin + r);
      scale[row_begin + r] = quantised.step();
      for (std::int64_t g = 0; g < cols / kInt4Group; ++g) {
        const Int4Group& group = quantised.group(g);
        std::byte* to = out + g * int4_group_bytes();
        to[r] = std::byte{group.scale};
        std::uint32_t words[2] = {0, 0};
        for (std::size_t i = 0; i < kInt4Group; ++i) {
          words[i / 8] |= (static_cast<std::uint32_t>(group.codes[i]) & 0xfu) << (i % 8 * 4);
        }
        for (std::int64_t half = 0; half < 2; ++half) {
          std::memcpy(to + panel_cols + (half * panel_cols + r) * 4, &words[half], 4);
        }
      }
    }
  }
  // Scales and codes of a group of all columns.
  std::int64_t int4_group_bytes() const { return panel_cols * (1 + kInt4Group / 2); }

  // The kernels know no NaN codes; a row that holds one gives NaN through its scale.
  void put_code(std::uint8_t code, std::int64_t row, std::uint8_t& out) const {
    const bool is_nan = (code & 0x7f) == 0x7f;
    if (is_nan) scale[row_begin + row] = std::numeric_limits<float>::quiet_NaN();
    out = is_nan ? std::uint8_t{0} : code;
  }

  void copy_codes(std::uint8_t* out) const {
    if (count < panel_cols) std::fill(out, out + cols * panel_cols, std::uint8_t{0});
    for (std::int64_t k = 0; k < cols; k += kSlice) {
      const std::int64_t end = std::min(cols, k + kSlice);
      for (std::int64_t r = 0; r < count; ++r) {
        const std::uint8_t* in = weight.as<std::uint8_t>() + (row_begin + r) * cols;
        for (std::int64_t i = k; i < end; ++i) put_code(in[i], r, out[i * panel_cols + r]);
      }
    }
  }

  void quantise(std::uint8_t* out) const {
    if (count < panel_cols) std::fill(out, out + cols * panel_cols, std::uint8_t{0});
    float largest[kMostPanelCols] = {};
    each_slice([&](const float* values, std::int64_t, std::int64_t depth, std::int64_t r) {
      for (std::int64_t i = 0; i < depth; ++i)
        largest[r] = std::max(largest[r], std::fabs(values[i]));
    });
    for (std::int64_t r = 0; r < count; ++r) {
      const bool usable = largest[r] > 0 && std::isfinite(largest[r]);
      largest[r] = usable ? largest[r] / kLargestF8 : 1.0f;  // from here on the step of the row
      scale[row_begin + r] *= largest[r];
    }
    each_slice([&](const float* values, std::int64_t k, std::int64_t depth, std::int64_t r) {
      for (std::int64_t i = 0; i < depth; ++i) {
        put_code(f32_to_f8e4m3(values[i] / largest[r]), r, out[(k + i) * panel_cols + r]);
      }
    });
  }
};

PanelType panel_type(DType storage) {
  switch (storage) {
    case DType::kF32:
      return PanelType::kF32;
    case DType::kBf16:
      return PanelType::kBf16;
    case DType::kInt4:
      return PanelType::kInt4;
    default:
      return PanelType::kF8;
  }
}

}  // namespace

std::int64_t PackedMatrix::num_panels() const {
  return ceil_div(rows_, std::int64_t{kernels_->panel_cols});
}

std::size_t PackedMatrix::panel_bytes() const {
  if (type_ == PanelType::kInt4) {
    return static_cast<std::size_t>(cols_ / kInt4Group * kernels_->panel_cols *
                                    (1 + kInt4Group / 2));
  }
  const std::int64_t depth = type_ == PanelType::kBf16 ? round_up(cols_, std::int64_t{2}) : cols_;
  const std::int64_t element = type_ == PanelType::kF32 ? 4 : (type_ == PanelType::kBf16 ? 2 : 1);
  return static_cast<std::size_t>(depth * kernels_->panel_cols * element);
}

Result<std::unique_ptr<const Matrix>> PackedMatrix::pack(const MatrixSource& source, DType storage,
                                                         const KernelTable& kernels,
                                                         ThreadPool& pool) {
  const TensorView& weight = source.weight;
  FOVEA_CHECK(weight.shape.rank() == 2, "a weight of shape {}", weight.shape.to_string());
  if (weight.dtype == DType::kI32 || weight.dtype == DType::kI8 || weight.dtype == DType::kU8) {
    return error(ErrorCode::kUnsupported, "a {} matrix cannot be packed", dtype_name(weight.dtype));
  }
  if (storage != DType::kF32 && storage != DType::kBf16 && storage != DType::kF8E4M3 &&
      storage != DType::kInt4) {
    return error(ErrorCode::kUnsupported, "the CPU backend does not store weights as {}",
                 dtype_name(storage));
  }
  const std::int64_t rows = weight.shape[0];
  const std::int64_t cols = weight.shape[1];
  if (storage == DType::kInt4 && !fits_int4(cols)) {
    return error(ErrorCode::kUnsupported, "rows of {} cannot be stored in 4 bits", cols);
  }
  FOVEA_CHECK(source.row_scale.empty() || source.row_scale.num_elements() == rows,
              "{} row scales for {} rows", source.row_scale.num_elements(), rows);
  FOVEA_CHECK(kernels.panel_cols <= kMostPanelCols, "panels of {} columns", kernels.panel_cols);
  const PanelType type = panel_type(storage);
  std::unique_ptr<PackedMatrix> matrix(new PackedMatrix(kernels, type, rows, cols));
  const std::int64_t num_panels = matrix->num_panels();
  const std::size_t panel_bytes = matrix->panel_bytes();
  const bool scaled =
      !source.row_scale.empty() || type == PanelType::kF8 || type == PanelType::kInt4;
  matrix->panels_ = allocate_aligned(panel_bytes * static_cast<std::size_t>(num_panels));
  const std::size_t scale_bytes = scaled ? static_cast<std::size_t>(rows) * sizeof(float) : 0;
  matrix->scale_memory_ = allocate_aligned(scale_bytes);
  if (matrix->panels_ == nullptr || matrix->scale_memory_ == nullptr) {
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
  pool.parallel_for(num_panels, [&](std::int64_t panel, int) {
    const std::int64_t begin = panel * kernels.panel_cols;
    const PanelJob job{weight,
                       cols,
                       kernels.panel_cols,
                       begin,
                       std::min<std::int64_t>(kernels.panel_cols, rows - begin),
                       scale};
    std::byte* out = matrix->panels_.get() + panel_bytes * static_cast<std::size_t>(panel);
    if (type == PanelType::kF32) {
      job.pack_f32(reinterpret_cast<float*>(out));
    } else if (type == PanelType::kBf16) {
      job.pack_bf16(reinterpret_cast<std::uint16_t*>(out));
    } else if (type == PanelType::kInt4) {
      job.pack_int4(source, out);
    } else if (weight.dtype == DType::kF8E4M3) {
      job.copy_codes(reinterpret_cast<std::uint8_t*>(out));
    } else {
      job.quantise(reinterpret_cast<std::uint8_t*>(out));
    }
  });
  matrix->size_bytes_ = panel_bytes * static_cast<std::size_t>(num_panels) + scale_bytes;
  matrix->scale_ = scale;
  return std::unique_ptr<const Matrix>(std::move(matrix));
}

}  // namespace fovea::cpu
