#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/parallel_rows.h"
#include "base/check.h"
#include "base/math.h"
#include "tensor/half.h"

namespace fovea::cpu {
namespace {

void copy_row(const float* from, float* to, std::int64_t width) {
  std::memcpy(to, from, static_cast<std::size_t>(width) * sizeof(float));
}

}  // namespace

void CpuOps::embed(Stream&, TensorView table, TensorView ids, TensorView y) {
  const std::int64_t width = table.shape.back();
  FOVEA_CHECK(y.num_elements() == ids.num_elements() * width, "y {} for {} ids of width {}",
              y.shape.to_string(), ids.num_elements(), width);
  FOVEA_CHECK(table.dtype == DType::kF32 || table.dtype == DType::kBf16, "table of {}",
              dtype_name(table.dtype));
  parallel_rows(pool_, ids.num_elements(), width, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t id = ids.as<std::int32_t>()[t];
      if (id < 0) continue;
      FOVEA_CHECK(id < table.shape[0], "id {} of a vocabulary of {}", id, table.shape[0]);
      float* out = y.as<float>() + t * width;
      if (table.dtype == DType::kF32) {
        copy_row(table.as<float>() + id * width, out, width);
      } else {
        const std::uint16_t* in = table.as<std::uint16_t>() + id * width;
        for (std::int64_t i = 0; i < width; ++i) out[i] = bf16_to_f32(in[i]);
      }
    }
  });
}

void CpuOps::scatter_rows(Stream&, TensorView x, TensorView rows, TensorView y) {
  const std::int64_t width = y.shape.back();
  FOVEA_CHECK(x.num_elements() == rows.num_elements() * width, "x {}, {} rows of {}",
              x.shape.to_string(), rows.num_elements(), width);
  // One thread: two equal rows would race, and a copy is bound by memory anyway.
  for (std::int64_t m = 0; m < rows.num_elements(); ++m) {
    const std::int64_t row = rows.as<std::int32_t>()[m];
    FOVEA_CHECK(row >= 0 && row < y.shape[0], "row {} of {}", row, y.shape[0]);
    copy_row(x.as<float>() + m * width, y.as<float>() + row * width, width);
  }
}

void CpuOps::gather_rows(Stream&, TensorView x, TensorView rows, TensorView y) {
  const std::int64_t width = x.shape.back();
  FOVEA_CHECK(y.num_elements() == rows.num_elements() * width, "y {}, {} rows of {}",
              y.shape.to_string(), rows.num_elements(), width);
  for (std::int64_t m = 0; m < rows.num_elements(); ++m) {
    const std::int64_t row = rows.as<std::int32_t>()[m];
    FOVEA_CHECK(row >= 0 && row < x.shape[0], "row {} of {}", row, x.shape[0]);
    copy_row(x.as<float>() + row * width, y.as<float>() + m * width, width);
  }
}

void CpuOps::layer_norm(Stream&, TensorView x, TensorView weight, TensorView bias, float eps,
                        TensorView y) {
  const std::int64_t width = x.shape.back();
  FOVEA_CHECK(weight.num_elements() == width && bias.num_elements() == width &&
                  y.num_elements() == x.num_elements(),
              "x {}, weight {}, bias {}, y {}", x.shape.to_string(), weight.shape.to_string(),
              bias.shape.to_string(), y.shape.to_string());
  const std::int64_t rows = width == 0 ? 0 : x.num_elements() / width;
  parallel_rows(pool_, rows, width, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      kernels_.layer_norm(x.as<float>() + t * width, weight.as<float>(), bias.as<float>(), eps,
                          y.as<float>() + t * width, width);
    }
  });
}

void CpuOps::tau_scale(Stream&, TensorView tau, TensorView position_scale, TensorView positions,
                       HeadLayout heads, TensorView qkv) {
  FOVEA_CHECK(heads.num_heads == heads.num_kv_heads, "tau with {} heads over {}", heads.num_heads,
              heads.num_kv_heads);
  const std::int64_t num_heads = heads.num_heads;
  const std::int64_t head_dim = heads.head_dim;
  const std::int64_t width = 3 * num_heads * head_dim;
  const std::int64_t rows = positions.num_elements();
  FOVEA_CHECK(qkv.num_elements() == rows * width && tau.num_elements() == rows * 2 * num_heads,
              "qkv {}, tau {}, {} rows", qkv.shape.to_string(), tau.shape.to_string(), rows);
  parallel_rows(pool_, rows, width, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t position = positions.as<std::int32_t>()[t];
      FOVEA_CHECK(position >= 0 && position < position_scale.shape[0], "position {} of {}",
                  position, position_scale.shape[0]);
      const float* scale = position_scale.as<float>() + position * num_heads;
      const float* row_tau = tau.as<float>() + t * 2 * num_heads;
      float* q = qkv.as<float>() + t * width;
      float* v = q + 2 * num_heads * head_dim;
      for (std::int64_t h = 0; h < num_heads; ++h) {
        const float q_factor = std::tanh(row_tau[h]) + scale[h];
        const float v_factor = std::tanh(row_tau[num_heads + h]) + scale[h];
        for (std::int64_t d = 0; d < head_dim; ++d) q[h * head_dim + d] *= q_factor;
        for (std::int64_t d = 0; d < head_dim; ++d) v[h * head_dim + d] *= v_factor;
      }
    }
  });
}

}  // namespace fovea::cpu
