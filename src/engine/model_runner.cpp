#include "engine/model_runner.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/try.h"
#include "tensor/half.h"

namespace fovea {
namespace {

constexpr int kExtraRows =
    256;  // rows of a pass beyond the picture's prefix: a prompt's usual length
constexpr int kMaxRegionRows = 256;  // coordinates and sizes among the rows of one pass
constexpr int kMaxCropsPerPass =
    2;  // enough rows for full-speed products; more would only cost memory
constexpr float kLocalisationWindow = 0.02f;  // of the picture, to each side

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

Result<std::unique_ptr<ModelRunner>> ModelRunner::create(Device& device, const Model& model,
                                                         PagedKvCache& cache,
                                                         const RunnerOptions& options) {
  std::unique_ptr<ModelRunner> runner(new ModelRunner(device, model, cache, options));
  const ModelConfig& config = model.config();
  StepLimits limits;
  limits.max_crops_per_pass = kMaxCropsPerPass;
  limits.max_crops = config.vision.max_crops + 1;
  limits.max_rows = config.text.prefix_attn + kExtraRows;
  limits.max_region_rows = kMaxRegionRows;
  const DType dtype = device.ops().activation_dtype(model.storage());
  FOVEA_TRY(runner->stream_, device.make_stream());
  FOVEA_TRY(runner->activations_, Activations::create(device, config, dtype, limits));
  const std::int64_t crop = config.vision.crop_size;
  FOVEA_TRY(runner->crops_, Tensor::create(device, DType::kU8, {kMaxCropsPerPass, crop, crop, 3}));
  for (Tensor* tensor :
       {&runner->token_ids_, &runner->positions_, &runner->slots_, &runner->image_rows_}) {
    FOVEA_TRY(*tensor, Tensor::create(device, DType::kI32, {limits.max_rows}));
  }
  FOVEA_TRY(runner->last_rows_, Tensor::create(device, DType::kI32, {1}));
  FOVEA_TRY(runner->region_rows_, Tensor::create(device, DType::kI32, {2 * kMaxRegionRows}));
  FOVEA_TRY(runner->region_values_, Tensor::create(device, DType::kF32, {2 * kMaxRegionRows, 2}));
  FOVEA_TRY(runner->region_embeds_,
            Tensor::create(device, dtype, {2 * kMaxRegionRows, config.text.dim}));
  FOVEA_TRY(runner->chosen_ids_, Tensor::create(device, DType::kI32, {2}));
  FOVEA_TRY(runner->chosen_logprobs_, Tensor::create(device, DType::kF32, {2}));
  return runner;
}

Result<Tensor> ModelRunner::encode_picture(const Crops& crops) {
  const VisionConfig& vision = model_.config().vision;
  const int num_crops = crops.num_crops();
  const std::size_t crop_bytes = crops.pixels.size() / static_cast<std::size_t>(num_crops);
  TensorView features = activations_.vision.features.view();
  Tensor oversized;  // a very long picture has more tiles than the scratch is made for
  if (num_crops > features.shape[0]) {
    FOVEA_TRY(oversized, Tensor::create(device_, features.dtype,
                                        {num_crops, features.shape[1], features.shape[2]}));
    features = oversized.view();
  }
  features = features.rows(0, num_crops);
  for (int first = 0; first < num_crops; first += kMaxCropsPerPass) {
    const int count = std::min(kMaxCropsPerPass, num_crops - first);
    const TensorView pass = crops_.rows(count);
    stream_->upload(std::as_bytes(std::span(crops.pixels))
                        .subspan(static_cast<std::size_t>(first) * crop_bytes,
                                 static_cast<std::size_t>(count) * crop_bytes),
                    pass);
    model_.vision().encode_crops(*stream_, pass, activations_, features.rows(first, count));
  }
  FOVEA_TRY(Tensor embeddings, Tensor::create(device_, features.dtype,
                                              {vision.image_tokens(), model_.config().text.dim}));
  model_.vision().project(*stream_, features, crops.tiling.rows, crops.tiling.cols, activations_,
                          embeddings.view());
  FOVEA_TRY_STATUS(stream_->synchronize());
  return embeddings;
}

Status ModelRunner::compute(const Sequence& sequence) {
  int begin = sequence.num_computed();
  while (begin < sequence.length()) {
    const int end = std::min(sequence.length(), begin + activations_.limits.max_rows);
    FOVEA_TRY_STATUS(run_rows(sequence, begin, end));
    begin = end;
  }
  return {};
}

// Positions [begin, end) through the text model. The first pass of a picture's sequence begins at 0
// and is long enough for its whole prefix.
Status ModelRunner::run_rows(const Sequence& sequence, int begin, int end) {
  const int num_rows = end - begin, image_end = 1 + sequence.image_tokens();
  std::vector<std::int32_t> ids, positions, slots, image_rows;
  for (int position = begin; position < end; ++position) {
    positions.push_back(position);
    slots.push_back(sequence.slot_of(position));
    if (position == 0) {
      ids.push_back(sequence.bos().value());
    } else if (position < image_end) {
      ids.push_back(-1);
      image_rows.push_back(position - begin);
    } else {
      const Token& token = sequence.token_at(position);
      ids.push_back(token.kind == Token::Kind::kText ? token.id.value() : -1);
    }
  }
  stream_->upload(bytes_of(ids), token_ids_.rows(num_rows));
  stream_->upload(bytes_of(positions), positions_.rows(num_rows));
  stream_->upload(bytes_of(slots), slots_.rows(num_rows));
  const std::vector<std::int32_t> last_rows{num_rows - 1};
  stream_->upload(bytes_of(last_rows), last_rows_.view());

  std::vector<EmbeddedRows> embedded;
  if (!image_rows.empty()) {
    FOVEA_CHECK(
        begin == 0 && image_rows.size() == static_cast<std::size_t>(sequence.image_tokens()),
        "a picture's positions must run in one pass");
    const TensorView rows = image_rows_.rows(static_cast<std::int64_t>(image_rows.size()));
    stream_->upload(bytes_of(image_rows), rows);
    embedded.push_back({sequence.image(), rows});
  }
  FOVEA_TRY_STATUS(embed_regions(sequence, begin, end, embedded));

  std::vector<std::int32_t> page_table;
  for (const PageId page : sequence.pages()) page_table.push_back(page.value());
  const std::array<std::int32_t, 2> query_start{0, num_rows};
  const std::array<std::int32_t, 1> context_len{end}, prefix_len{sequence.prefix_len()};
  model_.text().forward(*stream_,
                        {.token_ids = token_ids_.rows(num_rows),
                         .positions = positions_.rows(num_rows),
                         .slots = slots_.rows(num_rows),
                         .last_rows = last_rows_.view(),
                         .embedded = embedded,
                         .attention = {query_start, context_len, prefix_len, page_table,
                                       static_cast<std::int64_t>(page_table.size())}},
                        cache_.layers(), activations_);
  // Host arrays above are read by what was enqueued.
  return stream_->synchronize();
}

Status ModelRunner::embed_regions(const Sequence& sequence, int begin, int end,
                                  std::vector<EmbeddedRows>& embedded) {
  std::vector<float> coords, sizes;
  std::vector<std::int32_t> coord_rows, size_rows;
  for (int position = std::max(begin, 1 + sequence.image_tokens()); position < end; ++position) {
    const Token& token = sequence.token_at(position);
    if (token.kind == Token::Kind::kCoord) {
      coords.push_back(token.a);
      coord_rows.push_back(position - begin);
    } else if (token.kind == Token::Kind::kSize) {
      sizes.insert(sizes.end(), {token.a, token.b});
      size_rows.push_back(position - begin);
    }
  }
  FOVEA_TRY_STATUS(encode_region_rows(Token::Kind::kCoord, coords, coord_rows, 0, embedded));
  return encode_region_rows(Token::Kind::kSize, sizes, size_rows, kMaxRegionRows, embedded);
}

Status ModelRunner::encode_region_rows(Token::Kind kind, const std::vector<float>& values,
                                       const std::vector<std::int32_t>& rows,
                                       std::int64_t first_slot,
                                       std::vector<EmbeddedRows>& embedded) {
  if (rows.empty()) return {};
  const auto count = static_cast<std::int64_t>(rows.size());
  FOVEA_CHECK(count <= kMaxRegionRows, "{} region rows in one pass", count);
  const TensorView row_view = region_rows_.view().rows(first_slot, count);
  TensorView value_view = region_values_.view().rows(first_slot, count);
  if (kind == Token::Kind::kCoord) value_view.shape = {count, 1};
  const TensorView embeds = region_embeds_.view().rows(first_slot, count);
  stream_->upload(bytes_of(rows), row_view);
  stream_->upload(bytes_of(values), value_view);
  if (kind == Token::Kind::kCoord) {
    model_.region().encode_coords(*stream_, value_view, activations_, embeds);
  } else {
    model_.region().encode_sizes(*stream_, value_view, activations_, embeds);
  }
  embedded.push_back({embeds, row_view});
  return stream_->synchronize();
}

Result<SampledToken> ModelRunner::sample(const TokenRule& rule, const Sampling& sampling,
                                         int position) {
  const PromptConfig& prompts = model_.config().prompts;
  std::pair<TokenId, float> word{prompts.eos, 0.0f};
  if (rule.allowed.size() == 1) {
    word.first =
        rule.allowed.front();  // nothing to choose: the largest product of the step is not needed
  } else {
    FOVEA_TRY(word, sample_word(rule, sampling, position));
  }
  const auto [id, logprob] = word;
  SampledToken sampled{Token::text(id), logprob, 1.0f};
  using Slot = TokenRule::Slot;
  const bool by_id = rule.slot == Slot::kById;
  const bool ended = id == prompts.eos;
  const TensorView hidden = activations_.text.hidden.view();
  if ((by_id && id == prompts.coord) || (rule.slot == Slot::kCoord && !ended)) {
    FOVEA_TRY(const Bins bins,
              choose_bins(model_.region().coord_logits(*stream_, hidden, activations_), 1, sampling,
                          position));
    sampled.token = Token::coord(id, reported(model_.region().coord_value(bins.first)));
    sampled.localisation = bins.localisation;
  } else if ((by_id && id == prompts.size) || (rule.slot == Slot::kSize && !ended)) {
    FOVEA_TRY(const Bins bins,
              choose_bins(model_.region().size_logits(*stream_, hidden, activations_), 2, sampling,
                          position));
    sampled.token = Token::size(id, reported(model_.region().size_value(bins.first)),
                                reported(model_.region().size_value(bins.second)));
    sampled.localisation = bins.localisation;
  }
  return sampled;
}

float ModelRunner::reported(float value) const {
  return options_.round_outputs_to_bf16 ? round_to_bf16(value) : value;
}

Result<std::pair<TokenId, float>> ModelRunner::sample_word(const TokenRule& rule,
                                                           const Sampling& sampling, int position) {
  model_.text().logits(*stream_, activations_.text.hidden.view(), activations_);
  std::vector<std::int32_t> mask_ids;
  for (const TokenId id : rule.allowed) mask_ids.push_back(id.value());
  for (const TokenId id : rule.suppressed) mask_ids.push_back(id.value());
  const std::array<SamplingRow, 1> rows{
      SamplingRow{.temperature = sampling.temperature,
                  .top_p = sampling.top_p,
                  .min_p = sampling.min_p,
                  .top_k = sampling.top_k,
                  .seed = sampling.seed,
                  .position = static_cast<std::uint64_t>(position),
                  .allowed_begin = 0,
                  .allowed_count = static_cast<std::int32_t>(rule.allowed.size()),
                  .suppressed_begin = static_cast<std::int32_t>(rule.allowed.size()),
                  .suppressed_count = static_cast<std::int32_t>(rule.suppressed.size())}};
  device_.ops().sample(*stream_, {activations_.text.logits.view(), rows, mask_ids,
                                  chosen_ids_.rows(1), chosen_logprobs_.rows(1)});
  std::array<std::int32_t, 1> id{};
  std::array<float, 1> logprob{};
  stream_->download(chosen_ids_.rows(1), std::as_writable_bytes(std::span(id)));
  stream_->download(chosen_logprobs_.rows(1), std::as_writable_bytes(std::span(logprob)));
  FOVEA_TRY_STATUS(stream_->synchronize());
  return std::pair(TokenId{id[0]}, logprob[0]);
}

// One bin of each group (a coordinate has one group, a size two), and the probability close to
// them.
Result<ModelRunner::Bins> ModelRunner::choose_bins(TensorView logits, int groups,
                                                   const Sampling& sampling, int position) {
  const std::int64_t num_bins = logits.num_elements() / groups;
  const TensorView rows = logits.reshaped({groups, num_bins});
  const int window = std::max(
      1, static_cast<int>(std::lround(kLocalisationWindow * static_cast<float>(num_bins))));
  std::array<std::int32_t, 2> bins{};
  std::array<float, 2> mass{1, 1};
  device_.ops().argmax_bins(*stream_, rows, window, chosen_ids_.rows(groups),
                            chosen_logprobs_.rows(groups));
  stream_->download(chosen_logprobs_.rows(groups),
                    std::as_writable_bytes(std::span(mass)).first(groups * sizeof(float)));
  FOVEA_TRY_STATUS(stream_->synchronize());
  if (options_.sample_coordinates && sampling.temperature > 0) {
    // Width and height are drawn independently, as words of their own: the seed sets them apart.
    std::vector<SamplingRow> draws;
    for (int group = 0; group < groups; ++group) {
      draws.push_back({.temperature = sampling.temperature,
                       .top_p = sampling.top_p,
                       .seed = sampling.seed + 1 + static_cast<std::uint64_t>(group),
                       .position = static_cast<std::uint64_t>(position)});
    }
    device_.ops().sample(
        *stream_, {rows, draws, {}, chosen_ids_.rows(groups), chosen_logprobs_.rows(groups)});
  }
  stream_->download(chosen_ids_.rows(groups),
                    std::as_writable_bytes(std::span(bins)).first(groups * sizeof(std::int32_t)));
  FOVEA_TRY_STATUS(stream_->synchronize());
  return Bins{bins[0], bins[1], mass[0] * mass[1]};
}

}  // namespace fovea
