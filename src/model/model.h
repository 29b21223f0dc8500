#pragma once

#include <functional>
#include <memory>

#include "backend/device.h"
#include "io/checkpoint.h"
#include "model/config.h"
#include "model/region_model.h"
#include "model/text_model.h"
#include "model/vision_model.h"
#include "model/weights.h"

namespace fovea {

struct ModelOptions {
  DType storage = DType::kBf16;  ///< f32 or bf16
  /// Of the large matrices that both towers' blocks repeat: f8e4m3, int4, or nothing for
  /// `storage`.
  std::optional<DType> block_storage;
  int max_context = 0;  ///< positions of one sequence; at most config.text.max_context
  int page_size = 16;   ///< positions of a KV page
  Activation tau_activation = Activation::kGeluTanh;
  RegionChoices region;
  bool pixels_in_fp32 = false;  ///< bf16 runs: one rounding of a normalised pixel, not three
  std::function<void(double)> on_progress;
};

/// Configuration, weights, and the three models over them. Immutable after load(), shared by every
/// sequence.
class Model {
 public:
  /// The device must outlive the model; the checkpoint may be closed afterwards.
  static Result<std::unique_ptr<const Model>> load(const Checkpoint& checkpoint, ModelConfig config,
                                                   Device& device, const ModelOptions& options);

  const ModelConfig& config() const { return config_; }
  const VisionModel& vision() const { return *vision_; }
  const TextModel& text() const { return *text_; }
  const RegionModel& region() const { return *region_; }

  DType storage() const { return storage_; }
  int max_context() const { return max_context_; }
  int page_size() const { return page_size_; }
  std::int64_t num_parameters() const { return num_parameters_; }
  std::size_t weight_bytes() const { return weight_bytes_; }

 private:
  Model() = default;

  ModelConfig config_;
  Weights weights_;
  Tensor pixel_values_;  // [256]
  std::unique_ptr<VisionModel> vision_;
  std::unique_ptr<TextModel> text_;
  std::unique_ptr<RegionModel> region_;
  DType storage_ = DType::kF32;
  int max_context_ = 0;
  int page_size_ = 0;
  std::int64_t num_parameters_ = 0;
  std::size_t weight_bytes_ = 0;
};

/// What `auto` means for this checkpoint: f32 when its embedding table is f32, else bf16.
Result<DType> natural_storage(const Checkpoint& checkpoint);

}  // namespace fovea
