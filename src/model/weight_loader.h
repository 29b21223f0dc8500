#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "backend/buffer.h"
#include "backend/ops.h"
#include "model/tensor_table.h"

namespace fovea {

/// A linear layer: y = weight x + bias.
struct Linear {
  std::unique_ptr<const Matrix> weight;
  Tensor bias;
};

struct LayerNorm {
  Tensor weight, bias;
};

/// Of every norm of these models. SigLIP itself has 1e-6, but they were trained with this one.
inline constexpr float kLayerNormEps = 1e-5f;

/// Elements of any float type as f32. Error: kInvalidArgument for other types.
Result<std::vector<float>> to_f32(const TensorEntry& entry);

/// Brings tensors from a checkpoint to a device, one kind of tensor a method, and counts what it
/// did. Matrices are packed in `storage` (f32 or bf16), those of blocks in `block_storage` (the
/// same, f8e4m3 or int4); vectors become f32. Rows that do not fit_int4() are kept in f8e4m3. Pages
/// of the file that were packed are given back to the system.
class WeightLoader {
 public:
  /// The table and device must outlive the loader. `on_progress` (may be empty) gets the fraction
  /// of the file done.
  WeightLoader(const TensorTable& table, Device& device, Stream& stream, DType storage,
               DType block_storage, std::function<void(double)> on_progress);

  /// `name`.weight [rows, cols] (or its int4 form) and `name`.bias [rows].
  Result<Linear> linear(std::string_view name, std::int64_t rows, std::int64_t cols);
  /// The same for one of the large matrices that a tower's blocks repeat.
  Result<Linear> block_linear(std::string_view name, std::int64_t rows, std::int64_t cols);
  /// `name`.weight and `name`.bias, [dim] each.
  Result<LayerNorm> layer_norm(std::string_view name, std::int64_t dim);
  /// The tensor as f32, in `shape`; leading dimensions of 1 may be missing or extra in the file. A
  /// transposed older spelling is turned.
  Result<Tensor> tensor(std::string_view name, Shape shape);
  /// The tensor in the storage type, not packed: an embedding table.
  Result<Tensor> table(std::string_view name, Shape shape);
  /// `name` [experts, rows, cols], one matrix an expert; with `scale_name` [experts, rows] f32 when
  /// it is stored in fp8. A block's.
  Result<std::vector<std::unique_ptr<const Matrix>>> experts(std::string_view name,
                                                             std::string_view scale_name,
                                                             int num_experts, std::int64_t rows,
                                                             std::int64_t cols);
  /// Matrices of [rows_each, cols] stacked in the order of `names` (a fused tensor `fused_name`,
  /// when there, is taken whole).
  Result<std::unique_ptr<const Matrix>> stacked(std::string_view fused_name,
                                                std::span<const std::string> names,
                                                std::int64_t rows_each, std::int64_t cols);
  /// Host values as a device tensor.
  Result<Tensor> upload(std::span<const float> values, Shape shape);
  /// A tensor's values on the host as f32.
  Result<std::vector<float>> host_values(std::string_view name, std::int64_t num_elements);

  std::int64_t num_parameters() const { return num_parameters_; }
  std::size_t weight_bytes() const { return weight_bytes_; }
  DType storage() const { return storage_; }

 private:
  Result<std::unique_ptr<const Matrix>> pack(const MatrixSource& source, DType storage);
  Result<Linear> linear_as(DType storage, std::string_view name, std::int64_t rows,
                           std::int64_t cols);
  Result<std::unique_ptr<const Matrix>> int4_matrix(std::string_view name, std::int64_t rows,
                                                    std::int64_t cols, DType storage);
  void done_with(const TensorEntry& entry);

  const TensorTable& table_;
  Device& device_;
  Stream& stream_;
  DType storage_, block_storage_;
  std::function<void(double)> on_progress_;
  std::int64_t num_parameters_ = 0;
  std::size_t weight_bytes_ = 0;
  std::size_t bytes_read_ = 0;
};

}  // namespace fovea
