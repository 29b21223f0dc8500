#include "engine/generator.h"

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "base/math.h"
#include "base/try.h"
#include "engine/image_pipeline.h"

namespace fovea {
namespace {

CropGeometry crop_geometry(const VisionConfig& vision) {
  return {vision.crop_size, vision.enc_patch_size, vision.overlap_margin, vision.max_crops};
}

// The skills' defaults: words are drawn a little warm, coordinates greedily.
Sampling resolve_sampling(const Request& request) {
  const bool words = std::holds_alternative<CaptionRequest>(request.skill) ||
                     std::holds_alternative<QueryRequest>(request.skill);
  Sampling sampling;
  sampling.temperature = request.sampling.temperature.value_or(words ? 0.2f : 0.0f);
  sampling.top_p = request.sampling.top_p.value_or(words ? 0.9f : 1.0f);
  sampling.top_k = request.sampling.top_k.value_or(0);
  sampling.min_p = request.sampling.min_p.value_or(0.0f);
  sampling.seed = request.sampling.seed;
  return sampling;
}

}  // namespace

Generator::Generator(const Model& model, PagedKvCache cache, SkillFactory skills,
                     const EngineOptions& options)
    : model_(model),
      cache_(std::move(cache)),
      skills_(std::move(skills)),
      picture_limits_(options.picture_limits),
      compatibility_(options.compatibility),
      picture_threads_(options.num_threads > 0 ? options.num_threads : usable_processors()) {}

Result<std::unique_ptr<Generator>> Generator::create(Device& device, const Model& model,
                                                     SkillFactory skills,
                                                     const EngineOptions& options) {
  const int num_pages = ceil_div(model.max_context(), model.page_size());
  FOVEA_TRY(PagedKvCache cache, PagedKvCache::create(device, model.config().text, model.storage(),
                                                     num_pages, model.page_size()));
  std::unique_ptr<Generator> generator(
      new Generator(model, std::move(cache), std::move(skills), options));
  FOVEA_TRY(
      generator->runner_,
      ModelRunner::create(device, model, generator->cache_,
                          {.sample_coordinates = options.compatibility.sample_coordinates,
                           .round_outputs_to_bf16 = options.compatibility.round_outputs_to_bf16}));
  return generator;
}

Result<Response> Generator::generate(const Request& request, const StreamCallback& on_text) {
  const double started_ms = now_ms();
  FOVEA_TRY(const std::unique_ptr<SkillState> skill, skills_(request));
  const VisionConfig& vision = model_.config().vision;
  const int image_tokens = request.picture ? vision.image_tokens() : 0;
  const int prompt_len = 1 + image_tokens + static_cast<int>(skill->prompt().size());
  FOVEA_TRY(const int budget, token_budget(prompt_len, *skill, request));

  Response response;
  Usage& usage = response.usage;
  Tensor embeddings;
  if (request.picture) {
    FOVEA_TRY(const Crops crops,
              prepare_picture(*request.picture, picture_limits_, request.apply_exif,
                              crop_geometry(vision), picture_threads_));
    const double prepared_ms = now_ms();
    usage.picture_ms = prepared_ms - started_ms;
    FOVEA_TRY(embeddings, runner_->encode_picture(crops));
    usage.vision_ms = now_ms() - prepared_ms;
  }

  Sequence sequence(cache_.pages(), cache_.page_size(), model_.config().prompts.bos,
                    request.picture ? embeddings.view() : TensorView{});
  for (const Token& token : skill->prompt()) sequence.append(token);
  usage.prompt_tokens = prompt_len;
  FOVEA_TRY_STATUS(
      decode(sequence, *skill, resolve_sampling(request), budget, on_text, response, started_ms));

  skill->finish(response);
  if (on_text) {
    const std::string rest = skill->take_text();
    if (!rest.empty() && !on_text(rest))
      return error(ErrorCode::kCancelled, "the caller stopped the request");
  }
  usage.total_ms = now_ms() - started_ms;
  return response;
}

// A budget that the caller named must fit behind the prompt; a default one is cut to what is left.
Result<int> Generator::token_budget(int prompt_len, const SkillState& skill,
                                    const Request& request) const {
  const int left = model_.max_context() - prompt_len;
  const int wanted = skill.max_new_tokens();
  if (left < 1 || (request.sampling.max_tokens && wanted > left)) {
    return error(ErrorCode::kResourceExhausted,
                 "the prompt takes {} positions and the answer up to {}; the context holds {}",
                 prompt_len, wanted, model_.max_context());
  }
  return std::min(wanted, left);
}

Status Generator::decode(Sequence& sequence, SkillState& skill, const Sampling& sampling,
                         int budget, const StreamCallback& on_text, Response& response,
                         double started_ms) {
  Usage& usage = response.usage;
  const TokenId eos = model_.config().prompts.eos;
  response.finish_reason = FinishReason::kLength;
  double first_token_ms = 0;
  const double prefill_started_ms = now_ms();
  for (int generated = 0; generated < budget; ++generated) {
    if (!sequence.reserve(sequence.length())) {
      return error(ErrorCode::kResourceExhausted, "the KV cache has no page left");
    }
    FOVEA_TRY_STATUS(runner_->compute(sequence));
    sequence.mark_computed(sequence.length());
    TokenRule rule = skill.next_rule();
    if (generated == 0 && !compatibility_.mask_first_token) rule.suppressed = {};
    FOVEA_TRY(const SampledToken sampled, runner_->sample(rule, sampling, generated));
    if (generated == 0) {
      first_token_ms = now_ms();
      usage.prefill_ms = first_token_ms - prefill_started_ms;
      usage.ttft_ms = first_token_ms - started_ms;
    }
    ++usage.completion_tokens;
    if (sampled.token.id != eos && sampled.token.id != kNoToken)
      response.token_ids.push_back(sampled.token.id.value());
    const Progress progress = skill.consume(sampled);
    if (on_text) {
      const std::string text = skill.take_text();
      if (!text.empty() && !on_text(text))
        return error(ErrorCode::kCancelled, "the caller stopped the request");
    }
    if (progress != Progress::kContinue) {
      response.finish_reason =
          progress == Progress::kStop ? FinishReason::kStop : FinishReason::kLength;
      break;
    }
    sequence.append(sampled.token);
  }
  usage.decode_ms = now_ms() - first_token_ms;
  return {};
}

}  // namespace fovea
