// What a runner does with pictures: crops through the vision encoder, embeddings from and to the
// host.

#include "base/error.h"
#include "base/guard.h"
#include "base/try.h"
#include "engine/model_runner.h"

namespace fovea {

// The crops whose pictures have the memory they need; a picture for which there is none fails
// alone. What is kept: features of pictures that take several passes, and the embeddings.
void ModelRunner::choose_crops(const StepPlan& plan, Step& step) {
  const VisionConfig& vision = model_.config().vision;
  const std::int64_t tokens = vision.image_tokens();
  const DType dtype = activations_.vision.features.view().dtype;
  // So that a picture is in both lists or in none.
  step.crops.reserve(plan.crops.size());
  step.pictures.reserve(plan.crops.size());
  for (const PlannedCrops& crops : plan.crops) {
    PictureJob& picture = *crops.picture;
    if (picture.failure) continue;
    const auto take_memory = [&]() -> Status {
      const std::int64_t num_crops = picture.crops.num_crops();
      if (crops.first == 0 && crops.count < num_crops) {
        FOVEA_TRY(picture.features,
                  Tensor::create(device_, dtype, {num_crops, tokens, vision.enc_dim}));
      }
      if (crops.is_last) {
        auto image = std::make_shared<EncodedImage>(EncodedImage{picture.identity, {}});
        FOVEA_TRY(image->embeddings,
                  Tensor::create(device_, dtype, {tokens, model_.config().text.dim}));
        step.pictures.emplace_back(crops.picture, std::move(image));
      }
      step.crops.push_back(crops);
      return {};
    };
    if (const Status taken = guarded(take_memory); !taken.ok()) picture.failure = taken.error();
  }
}

// The crops of all pictures of the step in one pass; their features are kept with their pictures
// until the last crop is there and the picture can be projected.
void ModelRunner::encode_crops(Step& step) {
  if (step.crops.empty()) return;
  const VisionConfig& vision = model_.config().vision;
  const std::int64_t tokens = vision.image_tokens();
  std::int64_t num_crops = 0;
  for (const PlannedCrops& crops : step.crops) {
    const Crops& source = crops.picture->crops;
    const std::size_t crop_bytes =
        source.pixels.size() / static_cast<std::size_t>(source.num_crops());
    stream_->upload(std::as_bytes(std::span(source.pixels))
                        .subspan(static_cast<std::size_t>(crops.first) * crop_bytes,
                                 static_cast<std::size_t>(crops.count) * crop_bytes),
                    crops_.view().rows(num_crops, crops.count));
    num_crops += crops.count;
  }
  const TensorView pass = activations_.vision.features.rows(num_crops);
  model_.vision().encode_crops(*stream_, crops_.rows(num_crops), activations_, pass);

  std::int64_t place = 0;
  auto encoded = step.pictures.begin();
  for (const PlannedCrops& crops : step.crops) {
    const PictureJob& picture = *crops.picture;
    TensorView features = pass.rows(place, crops.count);
    if (crops.count < picture.crops.num_crops()) {
      const std::int64_t rows = crops.count * tokens;
      device_.ops().gather_rows(
          *stream_, pass.reshaped({num_crops * tokens, vision.enc_dim}),
          crop_rows_.view().rows(place * tokens, rows),
          picture.features.view().rows(crops.first, crops.count).reshaped({rows, vision.enc_dim}));
      features = picture.features.view();
    }
    place += crops.count;
    if (!crops.is_last) continue;
    model_.vision().project(*stream_, features, picture.crops.tiling.rows,
                            picture.crops.tiling.cols, activations_,
                            (encoded++)->second->embeddings.view());
  }
}

Result<std::shared_ptr<const EncodedImage>> ModelRunner::upload(const ImageIdentity& identity,
                                                                const HostEmbeddings& embeddings) {
  const DType dtype = activations_.vision.features.view().dtype;
  const Shape shape{model_.config().vision.image_tokens(), model_.config().text.dim};
  if (embeddings.dtype != dtype || embeddings.shape != shape) {
    return invalid_argument("embeddings of another model");
  }
  EncodedImage image{identity, {}};
  FOVEA_TRY(image.embeddings, Tensor::create(device_, dtype, shape));
  stream_->upload(embeddings.bytes, image.embeddings.view());
  FOVEA_TRY_STATUS(stream_->synchronize());
  return std::make_shared<const EncodedImage>(std::move(image));
}

Result<HostEmbeddings> ModelRunner::download(const EncodedImage& image) {
  const TensorView view = image.embeddings.view();
  HostEmbeddings embeddings{view.dtype, view.shape, std::vector<std::byte>(view.size_bytes())};
  stream_->download(view, embeddings.bytes);
  FOVEA_TRY_STATUS(stream_->synchronize());
  return embeddings;
}

}  // namespace fovea
