#pragma once

#include <memory>

#include "fovea/result.h"

#include "backend/buffer.h"
#include "backend/ops.h"
#include "base/thread_pool.h"

namespace fovea::portable {

/// A weight in device memory as it lies in a checkpoint: row-major, in its storage type; or in 4
/// bits, in the tiles of kernels/int4_tile.h.
class DeviceMatrix final : public Matrix {
 public:
  /// storage: f32, bf16 or f8e4m3. Sources that are not fp8 are quantised to fp8 with one scale for
  /// each row (the largest magnitude becomes 448). Errors: kResourceExhausted, kUnsupported.
  static Result<std::unique_ptr<const Matrix>> pack(const MatrixSource& source, DType storage,
                                                    Device& device, Stream& stream);

  /// In 4 bits, quantised on all threads of the pool. Errors: kResourceExhausted; kUnsupported for
  /// rows that do not fit_int4().
  static Result<std::unique_ptr<const Matrix>> pack_int4(const MatrixSource& source, Device& device,
                                                         Stream& stream, ThreadPool& pool);

  /// weight [rows, cols] f8e4m3 and its scale [rows] f32, which are on the device already.
  static std::unique_ptr<const Matrix> of_f8(Tensor weight, Tensor scale);

  std::int64_t rows() const override { return shape_[0]; }
  std::int64_t cols() const override { return shape_[1]; }
  std::size_t size_bytes() const override { return weight_.size_bytes() + scale_.size_bytes(); }

  /// [rows, cols]; of kInt4, tiles.
  TensorView weight() const { return {storage_, shape_, weight_.view().data}; }
  /// [rows] f32: element (r, c) counts scale[r] times; empty = 1.
  TensorView scale() const { return has_scale_ ? scale_.view() : TensorView{}; }

  /// What a backend has made of the bias that is always added to the product; see LinearArgs.
  struct NarrowBias {
    const void* of = nullptr;  ///< the bias, f32
    Tensor values;             ///< the same in 16 bits
  };
  NarrowBias& narrow_bias() const { return narrow_bias_; }

 private:
  DeviceMatrix(DType storage, Shape shape) : storage_(storage), shape_(shape) {}

  DType storage_;
  Shape shape_;
  Tensor weight_;
  Tensor scale_;
  bool has_scale_ = false;
  mutable NarrowBias narrow_bias_;
};

/// What pack() of a portable backend made.
inline const DeviceMatrix& device_matrix(const Matrix& matrix) {
  return static_cast<const DeviceMatrix&>(matrix);
}

}  // namespace fovea::portable
