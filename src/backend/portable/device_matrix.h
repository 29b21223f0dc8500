#pragma once

#include <memory>

#include "fovea/result.h"

#include "backend/buffer.h"
#include "backend/ops.h"

namespace fovea::portable {

/// A weight in device memory as it lies in a checkpoint: row-major, in its storage type.
class DeviceMatrix final : public Matrix {
 public:
  /// storage: f32, bf16 or f8e4m3. Sources that are not fp8 are quantised to fp8 with one scale for
  /// each row (the largest magnitude becomes 448). Errors: kResourceExhausted, kUnsupported.
  static Result<std::unique_ptr<const Matrix>> pack(const MatrixSource& source, DType storage,
                                                    Device& device, Stream& stream);

  std::int64_t rows() const override { return weight_.view().shape[0]; }
  std::int64_t cols() const override { return weight_.view().shape[1]; }
  std::size_t size_bytes() const override { return weight_.size_bytes() + scale_.size_bytes(); }

  TensorView weight() const { return weight_.view(); }
  /// [rows] f32: element (r, c) counts scale[r] times; empty = 1.
  TensorView scale() const { return has_scale_ ? scale_.view() : TensorView{}; }

 private:
  DeviceMatrix() = default;

  Tensor weight_;
  Tensor scale_;
  bool has_scale_ = false;
};

}  // namespace fovea::portable
