#pragma once

#include <memory>

#include "fovea/result.h"

#include "backend/cpu/aligned_memory.h"
#include "backend/cpu/isa/kernel_table.h"
#include "backend/ops.h"
#include "base/thread_pool.h"

namespace fovea::cpu {

/// A weight in the panels of one kernel table (layout: GemmArgs), with its row scales. Belongs to
/// the instruction set it was packed for.
class PackedMatrix final : public Matrix {
 public:
  /// storage: f32, bf16, f8e4m3 or int4. Sources that are not fp8 are quantised to fp8 with one
  /// scale per row (the largest magnitude becomes 448). Errors: kResourceExhausted, kUnsupported.
  static Result<std::unique_ptr<const Matrix>> pack(const MatrixSource& source, DType storage,
                                                    const KernelTable& kernels, ThreadPool& pool);

  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  std::size_t size_bytes() const override { return size_bytes_; }

  PanelType type() const { return type_; }
  const KernelTable* kernels() const { return kernels_; }
  const std::byte* panels() const { return panels_.get(); }
  /// [rows] or null.
  const float* scale() const { return scale_; }
  std::int64_t num_panels() const;
  /// Bytes that one panel takes.
  std::size_t panel_bytes() const;

 private:
  PackedMatrix(const KernelTable& kernels, PanelType type, std::int64_t rows, std::int64_t cols)
      : kernels_(&kernels), type_(type), rows_(rows), cols_(cols) {}

  const KernelTable* kernels_;
  PanelType type_;
  std::int64_t rows_;
  std::int64_t cols_;
  std::size_t size_bytes_ = 0;
  AlignedMemory panels_;
  AlignedMemory scale_memory_;
  const float* scale_ = nullptr;
};

}  // namespace fovea::cpu
