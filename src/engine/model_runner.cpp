#include "engine/model_runner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "base/clock.h"
#include "base/error.h"
#include "base/guard.h"
#include "base/try.h"
#include "engine/host_bytes.h"
#include "tensor/half.h"

namespace fovea {
namespace {

// Of a prompt, beyond the longest picture prefix.
constexpr int kUsualWords = 256;
constexpr float kLocalisationWindow = 0.02f;  // of the picture, to each side

// Rows of 32-bit integers as gather_rows and scatter_rows move them: by their bits.
TensorView as_bits(TensorView integers) {
  integers.shape = {integers.num_elements(), 1};
  integers.dtype = DType::kF32;
  return integers;
}

}  // namespace

Result<std::unique_ptr<ModelRunner>> ModelRunner::create(Device& device, const Model& model,
                                                         PagedKvCache& cache,
                                                         const RunnerOptions& options) {
  std::unique_ptr<ModelRunner> runner(new ModelRunner(device, model, cache, options));
  const ModelConfig& config = model.config();
  StepLimits limits;
  const int max_crops = device.crops_per_pass();
  limits.max_crops_per_pass = max_crops;
  limits.max_crops = max_crops;
  limits.max_sequences = options.max_sequences;
  // Prompts, and a decoded row of every sequence.
  const int prompts = std::min(device.prompts_per_step(), options.max_sequences);
  limits.max_rows = prompts * (config.text.prefix_attn + kUsualWords) + options.max_sequences;
  limits.max_region_rows = limits.max_rows;
  const DType dtype = device.ops().activation_dtype(model.storage());
  FOVEA_TRY(runner->stream_, device.make_stream());
  FOVEA_TRY(runner->activations_, Activations::create(device, config, dtype, limits));
  const std::int64_t crop = config.vision.crop_size, rows = limits.max_rows;
  const std::int64_t sequences = limits.max_sequences, dim = config.text.dim;
  struct Wanted {
    Tensor* tensor;
    DType dtype;
    Shape shape;
  };
  ModelRunner& r = *runner;
  const Wanted wanted[] = {
      {&r.crops_, DType::kU8, {max_crops, crop, crop, 3}},
      {&r.coord_values_, DType::kF32, {rows, 1}},
      {&r.size_values_, DType::kF32, {rows, 2}},
      {&r.coord_embeds_, dtype, {rows, dim}},
      {&r.size_embeds_, dtype, {rows, dim}},
      {&r.number_rows_, DType::kI32, {sequences}},
      {&r.number_places_, DType::kI32, {sequences}},
      {&r.number_hidden_, dtype, {sequences, dim}},
      {&r.bins_, DType::kI32, {2 * sequences}},
      {&r.mass_, DType::kF32, {2 * sequences}},
      {&r.number_values_, DType::kF32, {2 * sequences}},
      {&r.top_ids_, DType::kI32, {sequences, kMaxTopWords}},
      {&r.top_logprobs_, DType::kF32, {sequences, kMaxTopWords}},
      {&r.fed_words_, DType::kI32, {sequences}},
      {&r.drawn_, DType::kI32, {2 * sequences}},
      {&r.sampled_coords_, DType::kF32, {sequences, 1}},
      {&r.sampled_sizes_, DType::kF32, {sequences, 2}},
  };
  for (const auto& [tensor, type, shape] : wanted) {
    FOVEA_TRY(*tensor, Tensor::create(device, type, shape));
  }
  // Six lists of rows and eight of sequences at most; see compute_rows().
  FOVEA_TRY(r.table_, PackedTable::create(device, 6 * rows + 8 * sequences, 14));
  r.steps_.resize(static_cast<std::size_t>(options.depth));
  for (Step& step : r.steps_) {
    FOVEA_TRY(step.late_hidden, Tensor::create(device, dtype, {sequences, dim}));
  }
  FOVEA_TRY_STATUS(r.make_tables());
  return runner;
}

ModelRunner::~ModelRunner() {
  if (num_in_flight_ > 0) (void)stream_->synchronize();
}

// What never changes: the numbers that bins stand for, and the rows of a pass's crops.
Status ModelRunner::make_tables() {
  const ModelConfig& config = model_.config();
  std::vector<std::int32_t> crop_rows(
      static_cast<std::size_t>(device_.crops_per_pass() * config.vision.image_tokens()));
  std::iota(crop_rows.begin(), crop_rows.end(), 0);
  std::vector<float> coords(static_cast<std::size_t>(config.region.coord_out_dim));
  std::vector<float> sizes(static_cast<std::size_t>(config.region.size_out_dim / 2));
  for (std::size_t bin = 0; bin < coords.size(); ++bin) {
    coords[bin] = reported(model_.region().coord_value(static_cast<int>(bin)));
  }
  for (std::size_t bin = 0; bin < sizes.size(); ++bin) {
    sizes[bin] = reported(model_.region().size_value(static_cast<int>(bin)));
  }
  FOVEA_TRY(crop_rows_, Tensor::create(device_, DType::kI32, {count_of(crop_rows)}));
  FOVEA_TRY(coord_table_, Tensor::create(device_, DType::kF32, {count_of(coords), 1}));
  FOVEA_TRY(size_table_, Tensor::create(device_, DType::kF32, {count_of(sizes), 1}));
  stream_->upload(bytes_of(crop_rows), crop_rows_.view());
  stream_->upload(bytes_of(coords), coord_table_.view());
  stream_->upload(bytes_of(sizes), size_table_.view());
  return stream_->synchronize();
}

Status ModelRunner::launch(const StepPlan& plan) {
  FOVEA_CHECK(plan.num_rows <= max_rows() && plan.num_crops <= max_crops(),
              "a step of {} rows and {} crops; {} and {} are the limits", plan.num_rows,
              plan.num_crops, max_rows(), max_crops());
  FOVEA_CHECK(num_in_flight_ < steps_.size(), "{} steps are in flight", num_in_flight_);
  Step& step = steps_[next_launch_];
  // A launch that ended half way, for want of memory, has left here what it was to compute.
  step.crops.clear();
  step.pictures.clear();
  const double started_ms = now_ms();
  // A mark is a gap between kernels: one where the step before has just set one is enough.
  const std::size_t before = (next_launch_ + steps_.size() - 1) % steps_.size();
  step.began = num_in_flight_ > 0 ? steps_[before].done : stream_->mark();
  copy_pages(plan, step);
  choose_crops(plan, step);
  encode_crops(step);
  const double encoded_ms = now_ms();
  step.encoded = step.crops.empty() ? step.began : stream_->mark();
  step.in.places.clear();
  if (!plan.rows.empty()) compute_rows(plan, step);
  step.vision_ms = encoded_ms - started_ms;
  step.text_ms = now_ms() - encoded_ms;
  step.done = stream_->mark();
  next_launch_ = (next_launch_ + 1) % steps_.size();
  ++num_in_flight_;
  return {};
}

Result<StepOutput> ModelRunner::collect() {
  FOVEA_CHECK(num_in_flight_ > 0, "no step is in flight");
  Step& step = steps_[next_collect_];
  const bool is_last_try = std::exchange(step.was_tried, true);
  Result<StepOutput> output = guarded<StepOutput>([&] { return read(step); });
  const bool is_over =
      output.ok() || is_last_try || output.error().code != ErrorCode::kResourceExhausted;
  if (is_over) {
    step.was_tried = false;
    step.crops.clear();  // pictures are large
    step.pictures.clear();
    next_collect_ = (next_collect_ + 1) % steps_.size();
    --num_in_flight_;
  }
  return output;
}

// Waits for a step and makes its output; leaves the step as it is, so that this may be done again.
Result<StepOutput> ModelRunner::read(Step& step) {
  FOVEA_TRY_STATUS(stream_->wait(step.done));
  for (const auto& [job, encoded] : step.pictures) {
    job->features = {};
    job->crops.pixels = {};
    job->encoded = encoded;
  }
  StepOutput output;
  output.vision_ms = stream_->ms_between(step.began, step.encoded).value_or(step.vision_ms);
  output.text_ms = stream_->ms_between(step.encoded, step.done).value_or(step.text_ms);
  const StepInputs& in = step.in;
  if (in.places.empty()) return output;
  std::vector<SampledToken> tokens(in.sampling.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool is_drawn = static_cast<std::int64_t>(i) < in.num_words;
    tokens[i].token = Token::text(is_drawn ? TokenId{step.drawn[i]} : in.sampling[i].forced);
    if (!is_drawn) continue;
    tokens[i].logprob =
        std::bit_cast<float>(step.drawn[static_cast<std::size_t>(options_.max_sequences) + i]);
    for (int k = 0; k < in.sampling[i].num_top; ++k) {
      const std::size_t at = i * kMaxTopWords + static_cast<std::size_t>(k);
      if (step.top_words[at] >= 0) {
        tokens[i].top.emplace_back(step.top_words[at], step.top_logprobs[at]);
      }
    }
  }
  for (std::size_t n = 0; n < in.coord_places.size(); ++n) {
    set_number(Token::Kind::kCoord, step.coords, n,
               tokens[static_cast<std::size_t>(in.coord_places[n])]);
  }
  for (std::size_t n = 0; n < in.size_places.size(); ++n) {
    set_number(Token::Kind::kSize, step.sizes, n,
               tokens[static_cast<std::size_t>(in.size_places[n])]);
  }
  FOVEA_TRY_STATUS(read_late_numbers(step, tokens));

  // Back into the order of the plan.
  std::vector<std::size_t> order(tokens.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return in.sampling[i].row; });
  for (const std::size_t i : order) output.tokens.push_back(std::move(tokens[i]));
  return output;
}

void ModelRunner::copy_pages(const StepPlan& plan, Step& step) {
  if (plan.copies.empty()) return;
  StepInputs& in = step.in;
  in.copy_from.clear();
  in.copy_to.clear();
  for (const Sequence::PageCopy& copy : plan.copies) {
    in.copy_from.push_back(copy.from.value());
    in.copy_to.push_back(copy.to.value());
  }
  device_.ops().copy_pages(*stream_, cache_.layers(), in.copy_from, in.copy_to);
}

// Words that the step before sampled, from there to this step's rows.
void ModelRunner::put_words(TensorView rows, TensorView places, TensorView token_ids) {
  const std::int64_t count = rows.num_elements();
  if (count == 0) return;
  const TensorView words = as_bits(fed_words_.rows(count));
  device_.ops().gather_rows(*stream_, as_bits(sampled_words()), places, words);
  device_.ops().scatter_rows(*stream_, words, rows, as_bits(token_ids));
}

ModelRunner::NumberRows ModelRunner::pack_numbers(Token::Kind kind, const StepInputs& in) {
  const bool is_coord = kind == Token::Kind::kCoord;
  const FedRows& fed = is_coord ? in.fed_coords : in.fed_sizes;
  return {table_.add(is_coord ? in.coord_rows : in.size_rows, fed.rows), table_.add(fed.places)};
}

void ModelRunner::embed_numbers(Token::Kind kind, const StepInputs& in, const NumberRows& packed,
                                std::vector<EmbeddedRows>& embedded) {
  const std::int64_t count = packed.rows.num_elements();
  if (count == 0) return;
  const bool is_coord = kind == Token::Kind::kCoord;
  const std::int64_t num_fed = packed.fed_places.num_elements(), num_known = count - num_fed;
  const TensorView values = (is_coord ? coord_values_ : size_values_).rows(count);
  stream_->upload(bytes_of(is_coord ? in.coords : in.sizes), values.rows(0, num_known));
  if (num_fed > 0) {
    device_.ops().gather_rows(*stream_, (is_coord ? sampled_coords_ : sampled_sizes_).view(),
                              packed.fed_places, values.rows(num_known, num_fed));
  }
  const TensorView embeds = (is_coord ? coord_embeds_ : size_embeds_).rows(count);
  if (is_coord) {
    model_.region().encode_coords(*stream_, values, activations_, embeds);
  } else {
    model_.region().encode_sizes(*stream_, values, activations_, embeds);
  }
  embedded.push_back({embeds, packed.rows});
}

void ModelRunner::compute_rows(const StepPlan& plan, Step& step) {
  StepInputs& in = step.in;
  // The step launched last, if it is still in flight: rows that feed back take its tokens.
  const std::size_t before = (next_launch_ + steps_.size() - 1) % steps_.size();
  in.gather(plan, model_.config().prompts,
            num_in_flight_ > 0 ? steps_[before].in.places : no_places_);
  table_.clear();
  const TensorView token_ids = table_.add(in.ids), positions = table_.add(in.positions);
  const TensorView slots = table_.add(in.slots), last_rows = table_.add(in.last_rows);
  const TensorView fed_rows = table_.add(in.fed_words.rows);
  const TensorView fed_places = table_.add(in.fed_words.places);
  const TensorView image_rows = table_.add(in.image_rows), late_rows = table_.add(in.late_places);
  const NumberRows coords = pack_numbers(Token::Kind::kCoord, in);
  const NumberRows sizes = pack_numbers(Token::Kind::kSize, in);
  table_.send(*stream_);
  put_words(fed_rows, fed_places, token_ids);

  std::vector<EmbeddedRows> embedded;
  std::int64_t image_row = 0;
  for (const PlannedRows& rows : plan.rows) {
    const Sequence& sequence = *rows.generation->sequence;
    const int count = std::min(rows.end, 1 + sequence.image_tokens()) - std::max(rows.begin, 1);
    if (count <= 0) continue;
    FOVEA_CHECK(rows.begin == 0 && count == sequence.image_tokens() && sequence.image() != nullptr,
                "a picture's positions must run in one step");
    embedded.push_back({sequence.image()->embeddings.view(), image_rows.rows(image_row, count)});
    image_row += count;
  }
  embed_numbers(Token::Kind::kCoord, in, coords, embedded);
  embed_numbers(Token::Kind::kSize, in, sizes, embedded);

  const auto max_pages = count_of(in.page_table) / count_of(plan.rows);
  model_.text().forward(
      *stream_,
      {.token_ids = token_ids,
       .positions = positions,
       .slots = slots,
       .last_rows = last_rows,
       .embedded = embedded,
       .attention = {in.query_start, in.context_len, in.prefix_len, in.page_table, max_pages},
       .adapters = options_.adapters,
       .adapter_slots = in.adapter_slots},
      cache_.layers(), activations_);
  draw_words(plan, step);
  const TensorView hidden = activations_.text.hidden.view();
  read_numbers(Token::Kind::kCoord, in.coord_places, hidden, in.coord_places, step, step.coords);
  keep_numbers(Token::Kind::kCoord, in.coord_places);
  read_numbers(Token::Kind::kSize, in.size_places, hidden, in.size_places, step, step.sizes);
  keep_numbers(Token::Kind::kSize, in.size_places);
  if (const std::int64_t count = count_of(in.late_places); count > 0) {
    device_.ops().gather_rows(*stream_, hidden, late_rows, step.late_hidden.rows(count));
  }
}

TensorView ModelRunner::drawn_logprobs(std::int64_t count) const {
  TensorView logprobs = drawn_.view().rows(options_.max_sequences, count);
  logprobs.dtype = DType::kF32;
  return logprobs;
}

void ModelRunner::draw_words(const StepPlan& plan, Step& step) {
  StepInputs& in = step.in;
  const std::int64_t count = in.num_words;
  stream_->upload(bytes_of(in.forced_ids), sampled_words().rows(count, count_of(in.forced_ids)));
  if (count == 0) return;
  in.gather_draws(plan);
  model_.text().logits(*stream_, activations_.text.hidden.rows(count), activations_);
  SampleArgs args{.logits = activations_.text.logits.rows(count),
                  .rows = in.draws,
                  .mask_ids = in.mask_ids,
                  .ids = sampled_words().rows(0, count),
                  .logprobs = drawn_logprobs(count),
                  .seen = in.seen,
                  .biases = in.biases};
  if (in.wants_top) {
    args.top_ids = top_ids_.rows(count);
    args.top_logprobs = top_logprobs_.rows(count);
  }
  device_.ops().sample(*stream_, args);
  // Words and log-probs in one copy.
  step.drawn.resize(static_cast<std::size_t>(options_.max_sequences + count));
  stream_->download(drawn_.rows(count_of(step.drawn)), writable_bytes_of(step.drawn));
  if (in.wants_top) {
    step.top_words.resize(static_cast<std::size_t>(count * kMaxTopWords));
    step.top_logprobs.resize(step.top_words.size());
    stream_->download(args.top_ids, writable_bytes_of(step.top_words));
    stream_->download(args.top_logprobs, writable_bytes_of(step.top_logprobs));
  }
}

// Coordinates or sizes for rows that sample: read off their hidden states by the region head, all
// of a kind at once, and brought to the host. A coordinate is one group of bins, a size two.
void ModelRunner::read_numbers(Token::Kind kind, std::span<const std::int32_t> places,
                               TensorView hidden_states, std::span<const std::int32_t> hidden_rows,
                               Step& step, Numbers& numbers) {
  if (places.empty()) return;
  const bool is_coord = kind == Token::Kind::kCoord;
  const std::int64_t count = count_of(places), groups = is_coord ? 1 : 2;
  const TensorView rows = number_rows_.rows(count), hidden = number_hidden_.rows(count);
  stream_->upload(std::as_bytes(hidden_rows), rows);
  device_.ops().gather_rows(*stream_, hidden_states, rows, hidden);
  const RegionModel& region = model_.region();
  const TensorView scores = is_coord ? region.coord_logits(*stream_, hidden, activations_)
                                     : region.size_logits(*stream_, hidden, activations_);
  const std::int64_t num_draws = count * groups, num_bins = scores.num_elements() / num_draws;
  const TensorView logits = scores.reshaped({num_draws, num_bins});
  const int window = std::max(
      1, static_cast<int>(std::lround(kLocalisationWindow * static_cast<float>(num_bins))));
  const TensorView bins = bins_.rows(num_draws), mass = mass_.rows(num_draws);
  numbers.bins.resize(static_cast<std::size_t>(num_draws));
  numbers.mass.resize(numbers.bins.size());
  device_.ops().argmax_bins(*stream_, logits, window, bins, mass);
  stream_->download(mass, writable_bytes_of(numbers.mass));
  if (options_.sample_coordinates) {
    // Width and height are drawn independently, as words of their own: the seed sets them apart. A
    // temperature of 0 is the largest bin again.
    std::vector<SamplingRow>& draws = is_coord ? step.in.coord_draws : step.in.size_draws;
    draws.clear();
    for (const std::int32_t i : places) {
      const SamplingPlace& place = step.in.sampling[static_cast<std::size_t>(i)];
      for (std::int64_t group = 0; group < groups; ++group) {
        draws.push_back({.temperature = place.temperature,
                         .top_p = place.top_p,
                         .seed = place.seed + 1 + static_cast<std::uint64_t>(group),
                         .position = static_cast<std::uint64_t>(place.draw)});
      }
    }
    device_.ops().sample(
        *stream_, {.logits = logits, .rows = draws, .mask_ids = {}, .ids = bins, .logprobs = mass});
  }
  stream_->download(bins, writable_bytes_of(numbers.bins));
}

// Keeps the numbers that were read just now for rows of the next step that feed back.
void ModelRunner::keep_numbers(Token::Kind kind, std::span<const std::int32_t> places) {
  if (places.empty()) return;
  const bool is_coord = kind == Token::Kind::kCoord;
  const std::int64_t count = count_of(places), groups = is_coord ? 1 : 2;
  const TensorView at = number_places_.rows(count), bins = bins_.rows(count * groups);
  stream_->upload(std::as_bytes(places), at);
  TensorView values = number_values_.rows(count * groups);
  values.shape = {count * groups, 1};
  device_.ops().gather_rows(*stream_, (is_coord ? coord_table_ : size_table_).view(), bins, values);
  device_.ops().scatter_rows(*stream_, values.reshaped({count, groups}), at,
                             (is_coord ? sampled_coords_ : sampled_sizes_).view());
}

// Where a word among others may stand for a number, only the word tells: the hidden states were
// kept until it is known. Nothing runs ahead on such a number.
Status ModelRunner::read_late_numbers(Step& step, std::vector<SampledToken>& tokens) {
  const PromptConfig& prompts = model_.config().prompts;
  for (const Token::Kind kind : {Token::Kind::kCoord, Token::Kind::kSize}) {
    const std::optional<TokenId>& id = kind == Token::Kind::kCoord ? prompts.coord : prompts.size;
    std::vector<std::int32_t> places, rows;
    for (std::size_t n = 0; n < step.in.late_places.size(); ++n) {
      const std::int32_t place = step.in.late_places[n];
      if (tokens[static_cast<std::size_t>(place)].token.id != id) continue;
      places.push_back(place);
      rows.push_back(static_cast<std::int32_t>(n));
    }
    if (places.empty()) continue;
    Numbers numbers;
    read_numbers(kind, places, step.late_hidden.view(), rows, step, numbers);
    FOVEA_TRY_STATUS(stream_->synchronize());
    for (std::size_t n = 0; n < places.size(); ++n) {
      set_number(kind, numbers, n, tokens[static_cast<std::size_t>(places[n])]);
    }
  }
  return {};
}

// The end of an answer carries no number, whatever was read.
void ModelRunner::set_number(Token::Kind kind, const Numbers& numbers, std::size_t index,
                             SampledToken& sampled) const {
  const TokenId id = sampled.token.id;
  if (id == model_.config().prompts.eos) return;
  const RegionModel& region = model_.region();
  if (kind == Token::Kind::kCoord) {
    sampled.token = Token::coord(id, reported(region.coord_value(numbers.bins[index])));
    sampled.localisation = numbers.mass[index];
    return;
  }
  const std::size_t width = 2 * index, height = width + 1;
  sampled.token = Token::size(id, reported(region.size_value(numbers.bins[width])),
                              reported(region.size_value(numbers.bins[height])));
  sampled.localisation = numbers.mass[width] * numbers.mass[height];
}

float ModelRunner::reported(float value) const {
  return options_.round_outputs_to_bf16 ? round_to_bf16(value) : value;
}

}  // namespace fovea
