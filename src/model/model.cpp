#include "model/model.h"

#include <vector>

#include "base/error.h"
#include "base/try.h"
#include "tensor/half.h"

namespace fovea {
namespace {

// What each 8-bit pixel counts: (u / 255 - 0.5) / 0.5. The bf16 reference rounds after every step.
std::vector<float> make_pixel_values(DType storage, bool in_fp32) {
  std::vector<float> values;
  for (int u = 0; u < 256; ++u) {
    const auto pixel = static_cast<float>(u);
    if (storage == DType::kF32) {
      values.push_back((pixel / 255.0f - 0.5f) / 0.5f);
    } else if (in_fp32) {
      values.push_back(round_to_bf16((pixel / 255.0f - 0.5f) / 0.5f));
    } else {
      values.push_back(round_to_bf16(round_to_bf16(round_to_bf16(pixel / 255.0f) - 0.5f) / 0.5f));
    }
  }
  return values;
}

}  // namespace

Result<DType> natural_storage(const Checkpoint& checkpoint) {
  FOVEA_TRY(const auto found, TensorTable(checkpoint).require("text.wte"));
  return found.entry->dtype == DType::kF32 ? DType::kF32 : DType::kBf16;
}

Result<std::unique_ptr<const Model>> Model::load(const Checkpoint& checkpoint, ModelConfig config,
                                                 Device& device, const ModelOptions& options) {
  if (options.max_context <= config.text.prefix_attn ||
      options.max_context > config.text.max_context) {
    return invalid_argument(
        "max_context {} must lie between the picture's {} positions and the model's {}",
        options.max_context, config.text.prefix_attn, config.text.max_context);
  }
  const TensorTable table(checkpoint);
  FOVEA_TRY(const std::unique_ptr<Stream> stream, device.make_stream());
  WeightLoader loader(table, device, *stream, options.storage,
                      options.block_storage.value_or(options.storage), options.on_progress);

  std::unique_ptr<Model> model(new Model);
  model->config_ = std::move(config);
  FOVEA_TRY(model->weights_, load_weights(loader, model->config_, options.max_context));
  FOVEA_TRY(model->pixel_values_,
            loader.upload(make_pixel_values(options.storage, options.pixels_in_fp32), {256}));

  Ops& ops = device.ops();
  RegionChoices region = options.region;
  region.round_to_bf16 = options.storage != DType::kF32;
  model->vision_ = std::make_unique<VisionModel>(model->config_.vision, model->weights_.vision, ops,
                                                 model->pixel_values_.view());
  model->text_ = std::make_unique<TextModel>(model->config_.text, model->weights_.text, ops,
                                             options.page_size, options.tau_activation);
  model->region_ =
      std::make_unique<RegionModel>(model->config_.region, model->weights_.region, ops, region);
  model->storage_ = options.storage;
  model->max_context_ = options.max_context;
  model->page_size_ = options.page_size;
  model->num_parameters_ = loader.num_parameters();
  model->weight_bytes_ = loader.weight_bytes();
  return std::unique_ptr<const Model>(std::move(model));
}

}  // namespace fovea
