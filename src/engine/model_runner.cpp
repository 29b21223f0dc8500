#include "engine/model_runner.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/clock.h"
#include "base/error.h"
#include "base/try.h"
#include "tensor/half.h"

namespace fovea {
namespace {

// Rows of a step beyond the longest picture prefix and a decoded row of every sequence: a prompt's
// usual length.
constexpr int kExtraRows = 256;
constexpr int kMaxCropsPerPass =
    2;  // enough rows for full-speed products; more would only cost memory
constexpr float kLocalisationWindow = 0.02f;  // of the picture, to each side

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

template <class T>
std::span<std::byte> writable_bytes_of(std::vector<T>& values) {
  return std::as_writable_bytes(std::span(values));
}

std::int64_t count_of(const auto& values) { return static_cast<std::int64_t>(values.size()); }

}  // namespace

Result<std::unique_ptr<ModelRunner>> ModelRunner::create(Device& device, const Model& model,
                                                         PagedKvCache& cache,
                                                         const RunnerOptions& options) {
  std::unique_ptr<ModelRunner> runner(new ModelRunner(device, model, cache, options));
  const ModelConfig& config = model.config();
  StepLimits limits;
  limits.max_crops_per_pass = kMaxCropsPerPass;
  limits.max_crops = kMaxCropsPerPass;
  limits.max_sequences = options.max_sequences;
  limits.max_rows = config.text.prefix_attn + options.max_sequences + kExtraRows;
  limits.max_region_rows = limits.max_rows;
  const DType dtype = device.ops().activation_dtype(model.storage());
  FOVEA_TRY(runner->stream_, device.make_stream());
  FOVEA_TRY(runner->activations_, Activations::create(device, config, dtype, limits));
  const std::int64_t crop = config.vision.crop_size, rows = limits.max_rows;
  const std::int64_t sequences = limits.max_sequences;
  FOVEA_TRY(runner->crops_, Tensor::create(device, DType::kU8, {kMaxCropsPerPass, crop, crop, 3}));
  std::vector<std::int32_t> crop_rows(
      static_cast<std::size_t>(kMaxCropsPerPass * config.vision.image_tokens()));
  std::iota(crop_rows.begin(), crop_rows.end(), 0);
  FOVEA_TRY(runner->crop_rows_, Tensor::create(device, DType::kI32, {count_of(crop_rows)}));
  runner->stream_->upload(bytes_of(crop_rows), runner->crop_rows_.view());
  for (Tensor* tensor : {&runner->token_ids_, &runner->positions_, &runner->slots_,
                         &runner->image_rows_, &runner->region_rows_}) {
    FOVEA_TRY(*tensor, Tensor::create(device, DType::kI32, {rows}));
  }
  FOVEA_TRY(runner->region_values_, Tensor::create(device, DType::kF32, {rows, 2}));
  FOVEA_TRY(runner->region_embeds_, Tensor::create(device, dtype, {rows, config.text.dim}));
  FOVEA_TRY(runner->last_rows_, Tensor::create(device, DType::kI32, {sequences}));
  FOVEA_TRY(runner->number_rows_, Tensor::create(device, DType::kI32, {sequences}));
  FOVEA_TRY(runner->number_hidden_, Tensor::create(device, dtype, {sequences, config.text.dim}));
  FOVEA_TRY(runner->chosen_ids_, Tensor::create(device, DType::kI32, {2 * sequences}));
  FOVEA_TRY(runner->chosen_logprobs_, Tensor::create(device, DType::kF32, {2 * sequences}));
  FOVEA_TRY(runner->top_ids_, Tensor::create(device, DType::kI32, {sequences, kMaxTopWords}));
  FOVEA_TRY(runner->top_logprobs_, Tensor::create(device, DType::kF32, {sequences, kMaxTopWords}));
  FOVEA_TRY_STATUS(runner->stream_->synchronize());
  return runner;
}

Status ModelRunner::launch(const StepPlan& plan) {
  FOVEA_CHECK(plan.num_rows <= max_rows() && plan.num_crops <= max_crops(),
              "a step of {} rows and {} crops; {} and {} are the limits", plan.num_rows,
              plan.num_crops, max_rows(), max_crops());
  StepOutput output;
  const double started_ms = now_ms();
  copy_pages(plan);
  FOVEA_TRY_STATUS(encode_crops(plan));
  const double encoded_ms = now_ms();
  if (!plan.rows.empty()) {
    FOVEA_TRY_STATUS(compute_rows(plan));
    FOVEA_TRY_STATUS(draw(plan, output.tokens));
  }
  output.vision_ms = encoded_ms - started_ms;
  output.text_ms = now_ms() - encoded_ms;
  done_.push_back(std::move(output));
  return {};
}

Result<StepOutput> ModelRunner::collect() {
  StepOutput output = std::move(done_.front());
  done_.pop_front();
  return output;
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

void ModelRunner::copy_pages(const StepPlan& plan) {
  if (plan.copies.empty()) return;
  in_.copy_from.clear();
  in_.copy_to.clear();
  for (const Sequence::PageCopy& copy : plan.copies) {
    in_.copy_from.push_back(copy.from.value());
    in_.copy_to.push_back(copy.to.value());
  }
  device_.ops().copy_pages(*stream_, cache_.layers(), in_.copy_from, in_.copy_to);
}

// The crops of all pictures of the step in one pass; their features are kept with their pictures
// until the last crop is there and the picture can be projected.
Status ModelRunner::encode_crops(const StepPlan& plan) {
  if (plan.crops.empty()) return {};
  const VisionConfig& vision = model_.config().vision;
  const std::int64_t tokens = vision.image_tokens();
  const TensorView pass = activations_.vision.features.rows(plan.num_crops);
  std::int64_t place = 0;
  for (const PlannedCrops& crops : plan.crops) {
    const Crops& source = crops.picture->crops;
    const std::size_t crop_bytes =
        source.pixels.size() / static_cast<std::size_t>(source.num_crops());
    stream_->upload(std::as_bytes(std::span(source.pixels))
                        .subspan(static_cast<std::size_t>(crops.first) * crop_bytes,
                                 static_cast<std::size_t>(crops.count) * crop_bytes),
                    crops_.view().rows(place, crops.count));
    place += crops.count;
  }
  model_.vision().encode_crops(*stream_, crops_.rows(plan.num_crops), activations_, pass);

  place = 0;
  for (const PlannedCrops& crops : plan.crops) {
    PictureJob& picture = *crops.picture;
    const std::int64_t num_crops = picture.crops.num_crops();
    TensorView features = pass.rows(place, crops.count);
    if (crops.count < num_crops) {
      if (crops.first == 0) {
        FOVEA_TRY(picture.features,
                  Tensor::create(device_, pass.dtype, {num_crops, tokens, vision.enc_dim}));
      }
      const std::int64_t rows = crops.count * tokens;
      device_.ops().gather_rows(
          *stream_, pass.reshaped({plan.num_crops * tokens, vision.enc_dim}),
          crop_rows_.view().rows(place * tokens, rows),
          picture.features.view().rows(crops.first, crops.count).reshaped({rows, vision.enc_dim}));
      features = picture.features.view();
    }
    place += crops.count;
    if (!crops.is_last) continue;
    EncodedImage image{picture.identity, {}};
    FOVEA_TRY(image.embeddings,
              Tensor::create(device_, pass.dtype, {tokens, model_.config().text.dim}));
    model_.vision().project(*stream_, features, picture.crops.tiling.rows,
                            picture.crops.tiling.cols, activations_, image.embeddings.view());
    FOVEA_TRY_STATUS(stream_->synchronize());
    picture.features = {};
    picture.crops.pixels = {};
    picture.encoded = std::make_shared<const EncodedImage>(std::move(image));
  }
  return stream_->synchronize();
}

// Everything that the pass needs of the step's sequences, row by row.
void ModelRunner::gather_inputs(const StepPlan& plan) {
  Inputs& in = in_;
  for (auto* values : {&in.ids, &in.positions, &in.slots, &in.image_rows, &in.coord_rows,
                       &in.size_rows, &in.context_len, &in.prefix_len, &in.adapter_slots}) {
    values->clear();
  }
  in.coords.clear();
  in.sizes.clear();
  in.query_start.assign(1, 0);
  std::size_t max_pages = 0;
  for (const PlannedRows& rows : plan.rows) {
    FOVEA_CHECK(!rows.feeds_back, "this runner has no step in flight to feed back from");
    const Sequence& sequence = *rows.generation->sequence;
    const int image_end = 1 + sequence.image_tokens();
    max_pages = std::max(max_pages, sequence.pages().size());
    for (int position = rows.begin; position < rows.end; ++position) {
      const auto row = static_cast<std::int32_t>(in.ids.size());
      in.positions.push_back(position);
      in.slots.push_back(sequence.slot_of(position));
      if (position == 0) {
        in.ids.push_back(sequence.bos().value());
        continue;
      }
      if (position < image_end) {
        in.ids.push_back(-1);
        in.image_rows.push_back(row);
        continue;
      }
      const Token& token = sequence.token_at(position);
      in.ids.push_back(token.kind == Token::Kind::kText ? token.id.value() : -1);
      if (token.kind == Token::Kind::kCoord) {
        in.coords.push_back(token.a);
        in.coord_rows.push_back(row);
      } else if (token.kind == Token::Kind::kSize) {
        in.sizes.insert(in.sizes.end(), {token.a, token.b});
        in.size_rows.push_back(row);
      }
    }
    in.query_start.push_back(static_cast<std::int32_t>(in.ids.size()));
    in.context_len.push_back(rows.end);
    in.prefix_len.push_back(sequence.prefix_len());
    in.adapter_slots.push_back(rows.generation->adapter_slot);
  }
  in.page_table.assign(plan.rows.size() * max_pages, 0);
  for (std::size_t s = 0; s < plan.rows.size(); ++s) {
    const std::vector<PageId>& pages = plan.rows[s].generation->sequence->pages();
    for (std::size_t i = 0; i < pages.size(); ++i)
      in.page_table[s * max_pages + i] = pages[i].value();
  }

  // Hidden states come in the order in which they are used: where a word is forced, the step's
  // largest product is not needed.
  in.sampling.clear();
  for (const bool forced : {false, true}) {
    for (std::size_t s = 0; s < plan.rows.size(); ++s) {
      if (plan.rows[s].samples && (plan.rows[s].rule.allowed.size() == 1) == forced)
        in.sampling.push_back(s);
    }
    if (!forced) in.num_words = in.sampling.size();
  }
  in.last_rows.clear();
  for (const std::size_t s : in.sampling) in.last_rows.push_back(in.query_start[s + 1] - 1);
}

Status ModelRunner::compute_rows(const StepPlan& plan) {
  gather_inputs(plan);
  Inputs& in = in_;
  const std::int64_t num_rows = plan.num_rows;
  stream_->upload(bytes_of(in.ids), token_ids_.rows(num_rows));
  stream_->upload(bytes_of(in.positions), positions_.rows(num_rows));
  stream_->upload(bytes_of(in.slots), slots_.rows(num_rows));
  const TensorView last_rows = last_rows_.rows(count_of(in.last_rows));
  stream_->upload(bytes_of(in.last_rows), last_rows);

  in.embedded.clear();
  stream_->upload(bytes_of(in.image_rows), image_rows_.rows(count_of(in.image_rows)));
  std::int64_t image_row = 0;
  for (const PlannedRows& rows : plan.rows) {
    const Sequence& sequence = *rows.generation->sequence;
    const int count = std::min(rows.end, 1 + sequence.image_tokens()) - std::max(rows.begin, 1);
    if (count <= 0) continue;
    FOVEA_CHECK(rows.begin == 0 && count == sequence.image_tokens() && sequence.image() != nullptr,
                "a picture's positions must run in one step");
    in.embedded.push_back(
        {sequence.image()->embeddings.view(), image_rows_.view().rows(image_row, count)});
    image_row += count;
  }

  const std::int64_t num_coords = count_of(in.coord_rows), num_sizes = count_of(in.size_rows);
  if (num_coords > 0) {
    const TensorView rows = region_rows_.rows(num_coords);
    TensorView values = region_values_.rows(num_coords);
    values.shape = {num_coords, 1};
    stream_->upload(bytes_of(in.coord_rows), rows);
    stream_->upload(bytes_of(in.coords), values);
    const TensorView embeds = region_embeds_.rows(num_coords);
    model_.region().encode_coords(*stream_, values, activations_, embeds);
    in.embedded.push_back({embeds, rows});
  }
  if (num_sizes > 0) {
    const TensorView rows = region_rows_.view().rows(num_coords, num_sizes);
    const TensorView values = region_values_.view().rows(num_coords, num_sizes);
    stream_->upload(bytes_of(in.size_rows), rows);
    stream_->upload(bytes_of(in.sizes), values);
    const TensorView embeds = region_embeds_.view().rows(num_coords, num_sizes);
    model_.region().encode_sizes(*stream_, values, activations_, embeds);
    in.embedded.push_back({embeds, rows});
  }

  const auto max_pages = count_of(in.page_table) / count_of(plan.rows);
  model_.text().forward(
      *stream_,
      {.token_ids = token_ids_.rows(num_rows),
       .positions = positions_.rows(num_rows),
       .slots = slots_.rows(num_rows),
       .last_rows = last_rows,
       .embedded = in.embedded,
       .attention = {in.query_start, in.context_len, in.prefix_len, in.page_table, max_pages},
       .adapters = options_.adapters,
       .adapter_slots = in.adapter_slots},
      cache_.layers(), activations_);
  return stream_->synchronize();
}

Status ModelRunner::draw(const StepPlan& plan, std::vector<SampledToken>& tokens) {
  tokens.clear();
  for (const std::size_t s : in_.sampling) {
    const TokenRule& rule = plan.rows[s].rule;
    const TokenId id =
        rule.allowed.size() == 1 ? rule.allowed.front() : model_.config().prompts.eos;
    tokens.push_back({.token = Token::text(id)});
  }
  if (in_.num_words > 0) FOVEA_TRY_STATUS(draw_words(plan, tokens));
  FOVEA_TRY_STATUS(read_numbers(plan, Token::Kind::kCoord, tokens));
  FOVEA_TRY_STATUS(read_numbers(plan, Token::Kind::kSize, tokens));

  // Back into the order of the plan.
  std::vector<std::pair<std::size_t, SampledToken>> ordered;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    ordered.emplace_back(in_.sampling[i], std::move(tokens[i]));
  }
  std::ranges::sort(ordered, {}, &std::pair<std::size_t, SampledToken>::first);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = std::move(ordered[i].second);
  return {};
}

SamplingRow ModelRunner::sampling_row(const PlannedRows& rows) {
  Inputs& in = in_;
  const Generation& generation = *rows.generation;
  const Sampling& sampling = generation.sampling;
  const auto place = [](const auto& values) { return static_cast<std::int32_t>(values.size()); };
  SamplingRow row;
  row.temperature = sampling.temperature;
  row.top_p = sampling.top_p;
  row.min_p = sampling.min_p;
  row.top_k = sampling.top_k;
  row.seed = sampling.seed;
  row.position = static_cast<std::uint64_t>(rows.draw);
  row.allowed_begin = place(in.mask_ids);
  for (const TokenId id : rows.rule.allowed) in.mask_ids.push_back(id.value());
  row.allowed_count = place(in.mask_ids) - row.allowed_begin;
  row.suppressed_begin = place(in.mask_ids);
  for (const TokenId id : rows.rule.suppressed) in.mask_ids.push_back(id.value());
  row.suppressed_count = place(in.mask_ids) - row.suppressed_begin;
  if (sampling.has_penalties()) {
    row.repetition_penalty = sampling.repetition_penalty;
    row.presence_penalty = sampling.presence_penalty;
    row.frequency_penalty = sampling.frequency_penalty;
    const Sequence& sequence = *generation.sequence;
    std::map<std::int32_t, std::int32_t> counts;
    for (int position = 1 + sequence.image_tokens(); position < sequence.length(); ++position) {
      const Token& token = sequence.token_at(position);
      if (token.kind != Token::Kind::kText || token.id == kNoToken) continue;
      counts[token.id.value()] += position >= sequence.prompt_len() ? 1 : 0;
    }
    row.seen_begin = place(in.seen);
    for (const auto& [id, count] : counts) in.seen.push_back({id, count});
    row.seen_count = place(in.seen) - row.seen_begin;
  }
  row.bias_begin = place(in.biases);
  for (const auto& [id, bias] : sampling.logit_bias) in.biases.push_back({id.value(), bias});
  row.bias_count = place(in.biases) - row.bias_begin;
  row.num_top = std::max(0, sampling.num_top_logprobs);
  in.wants_top = in.wants_top || row.num_top > 0;
  return row;
}

Status ModelRunner::draw_words(const StepPlan& plan, std::vector<SampledToken>& tokens) {
  Inputs& in = in_;
  in.draws.clear();
  in.mask_ids.clear();
  in.seen.clear();
  in.biases.clear();
  in.wants_top = false;
  for (std::size_t i = 0; i < in.num_words; ++i) {
    in.draws.push_back(sampling_row(plan.rows[in.sampling[i]]));
  }
  const auto count = static_cast<std::int64_t>(in.num_words);
  model_.text().logits(*stream_, activations_.text.hidden.rows(count), activations_);
  SampleArgs args{.logits = activations_.text.logits.rows(count),
                  .rows = in.draws,
                  .mask_ids = in.mask_ids,
                  .ids = chosen_ids_.rows(count),
                  .logprobs = chosen_logprobs_.rows(count),
                  .seen = in.seen,
                  .biases = in.biases};
  if (in.wants_top) {
    args.top_ids = top_ids_.rows(count);
    args.top_logprobs = top_logprobs_.rows(count);
  }
  device_.ops().sample(*stream_, args);
  std::vector<std::int32_t> ids(in.num_words), top_ids;
  std::vector<float> logprobs(in.num_words), top_logprobs;
  stream_->download(args.ids, writable_bytes_of(ids));
  stream_->download(args.logprobs, writable_bytes_of(logprobs));
  if (in.wants_top) {
    top_ids.resize(in.num_words * kMaxTopWords);
    top_logprobs.resize(in.num_words * kMaxTopWords);
    stream_->download(args.top_ids, writable_bytes_of(top_ids));
    stream_->download(args.top_logprobs, writable_bytes_of(top_logprobs));
  }
  FOVEA_TRY_STATUS(stream_->synchronize());
  for (std::size_t i = 0; i < in.num_words; ++i) {
    tokens[i].token = Token::text(TokenId{ids[i]});
    tokens[i].logprob = logprobs[i];
    for (std::size_t k = 0; k < static_cast<std::size_t>(in.draws[i].num_top); ++k) {
      const std::size_t at = i * kMaxTopWords + k;
      if (top_ids[at] >= 0) tokens[i].top.emplace_back(top_ids[at], top_logprobs[at]);
    }
  }
  return {};
}

// Coordinates or sizes for the rows whose word stands for one: read off their hidden states by the
// region head, all rows of a kind at once. A coordinate is one group of bins, a size two.
Status ModelRunner::read_numbers(const StepPlan& plan, Token::Kind kind,
                                 std::vector<SampledToken>& tokens) {
  Inputs& in = in_;
  const PromptConfig& prompts = model_.config().prompts;
  using Slot = TokenRule::Slot;
  const bool is_coord = kind == Token::Kind::kCoord;
  in.number_rows.clear();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const TokenId id = tokens[i].token.id;
    const Slot slot = plan.rows[in.sampling[i]].rule.slot;
    const bool by_id = slot == Slot::kById && id == (is_coord ? prompts.coord : prompts.size);
    const bool by_slot = slot == (is_coord ? Slot::kCoord : Slot::kSize) && id != prompts.eos;
    if (by_id || by_slot) in.number_rows.push_back(static_cast<std::int32_t>(i));
  }
  if (in.number_rows.empty()) return {};

  const std::int64_t count = count_of(in.number_rows), groups = is_coord ? 1 : 2;
  const TensorView rows = number_rows_.rows(count), hidden = number_hidden_.rows(count);
  stream_->upload(bytes_of(in.number_rows), rows);
  device_.ops().gather_rows(*stream_, activations_.text.hidden.rows(count_of(in.last_rows)), rows,
                            hidden);
  const RegionModel& region = model_.region();
  const TensorView bins = is_coord ? region.coord_logits(*stream_, hidden, activations_)
                                   : region.size_logits(*stream_, hidden, activations_);
  const std::int64_t num_draws = count * groups, num_bins = bins.num_elements() / num_draws;
  const TensorView logits = bins.reshaped({num_draws, num_bins});
  const int window = std::max(
      1, static_cast<int>(std::lround(kLocalisationWindow * static_cast<float>(num_bins))));
  const TensorView ids = chosen_ids_.rows(num_draws), mass_view = chosen_logprobs_.rows(num_draws);
  std::vector<std::int32_t> chosen(static_cast<std::size_t>(num_draws));
  std::vector<float> mass(chosen.size());
  device_.ops().argmax_bins(*stream_, logits, window, ids, mass_view);
  stream_->download(mass_view, writable_bytes_of(mass));
  FOVEA_TRY_STATUS(stream_->synchronize());
  if (options_.sample_coordinates) {
    // Width and height are drawn independently, as words of their own: the seed sets them apart. A
    // temperature of 0 is the largest bin again.
    in.draws.clear();
    for (const std::int32_t i : in.number_rows) {
      const PlannedRows& planned = plan.rows[in.sampling[static_cast<std::size_t>(i)]];
      const Sampling& sampling = planned.generation->sampling;
      for (std::int64_t group = 0; group < groups; ++group) {
        in.draws.push_back({.temperature = sampling.temperature,
                            .top_p = sampling.top_p,
                            .seed = sampling.seed + 1 + static_cast<std::uint64_t>(group),
                            .position = static_cast<std::uint64_t>(planned.draw)});
      }
    }
    device_.ops().sample(
        *stream_,
        {.logits = logits, .rows = in.draws, .mask_ids = {}, .ids = ids, .logprobs = mass_view});
  }
  stream_->download(ids, writable_bytes_of(chosen));
  FOVEA_TRY_STATUS(stream_->synchronize());
  for (std::size_t n = 0; n < in.number_rows.size(); ++n) {
    SampledToken& sampled = tokens[static_cast<std::size_t>(in.number_rows[n])];
    const TokenId id = sampled.token.id;
    if (is_coord) {
      sampled.token = Token::coord(id, reported(region.coord_value(chosen[n])));
      sampled.localisation = mass[n];
    } else {
      sampled.token = Token::size(id, reported(region.size_value(chosen[2 * n])),
                                  reported(region.size_value(chosen[2 * n + 1])));
      sampled.localisation = mass[2 * n] * mass[2 * n + 1];
    }
  }
  return {};
}

float ModelRunner::reported(float value) const {
  return options_.round_outputs_to_bf16 ? round_to_bf16(value) : value;
}

}  // namespace fovea
