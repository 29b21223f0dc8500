#include "model/config.h"

#include <cmath>

#include "base/error.h"
#include "base/try.h"
#include "model/config_json.h"
#include "model/families.h"
#include "model/tensor_table.h"

namespace fovea {
namespace {

constexpr int kMaxLayers = 1024;
constexpr std::int64_t kMaxDim = 1 << 20;

// Size of dimension `dim` of a tensor that must have `rank` dimensions.
Result<int> dim_of(const TensorTable& table, std::string_view name, int rank, int dim) {
  FOVEA_TRY(const auto found, table.require(name));
  const Shape& shape = found.entry->shape;
  if (shape.rank() != rank) {
    return invalid_argument("tensor {}: shape {} found, {} dimensions wanted", found.entry->name,
                            shape.to_string(), rank);
  }
  const std::int64_t size = shape[dim];
  if (size <= 0 || size > kMaxDim) {
    return invalid_argument("tensor {}: shape {} is out of range", found.entry->name,
                            shape.to_string());
  }
  return static_cast<int>(size);
}

// Output rows of a linear layer: biases are stored in every variant of a checkpoint, also where
// weights are packed int4.
Result<int> rows_of(const TensorTable& table, std::string_view layer) {
  return dim_of(table, fmt::format("{}.bias", layer), 1, 0);
}

int count_layers(const TensorTable& table, std::string_view stem, std::string_view probe) {
  int layers = 0;
  while (layers < kMaxLayers && table.contains(fmt::format("{}.{}.{}", stem, layers, probe)))
    ++layers;
  return layers;
}

Status read_text_dims(const TensorTable& table, TextConfig& text) {
  FOVEA_TRY(text.vocab_size, dim_of(table, "text.wte", 2, 0));
  FOVEA_TRY(text.dim, dim_of(table, "text.wte", 2, 1));
  text.n_layers = count_layers(table, "text.blocks", "ln.weight");
  if (text.n_layers == 0)
    return error(ErrorCode::kNotFound, "the checkpoint has no tensor text.blocks.0.ln.weight");
  text.tau = table.contains("text.blocks.0.attn.tau.alpha");
  int first_moe = 0;
  while (first_moe < text.n_layers &&
         !table.contains(fmt::format("text.blocks.{}.mlp.router.weight", first_moe))) {
    ++first_moe;
  }
  if (first_moe > 0) {
    FOVEA_TRY(text.ff_dim, rows_of(table, "text.blocks.0.mlp.fc1"));
  }
  if (first_moe == text.n_layers) return {};
  MoeConfig moe;
  moe.start_layer = first_moe;
  FOVEA_TRY(moe.num_experts, rows_of(table, fmt::format("text.blocks.{}.mlp.router", first_moe)));
  FOVEA_TRY(moe.expert_inner_dim,
            dim_of(table, fmt::format("text.blocks.{}.mlp.fc2.weight", first_moe), 3, 2));
  text.moe = moe;
  return {};
}

Status read_vision_dims(const TensorTable& table, VisionConfig& vision, int& grid) {
  FOVEA_TRY(vision.enc_dim, rows_of(table, "vision.patch_emb"));
  FOVEA_TRY(const int patch_dim, dim_of(table, "vision.patch_emb.weight", 2, 1));
  FOVEA_TRY(const int patches, dim_of(table, "vision.pos_emb", 3, 1));
  FOVEA_TRY(vision.enc_ff_dim, rows_of(table, "vision.blocks.0.mlp.fc1"));
  FOVEA_TRY(vision.proj_inner_dim, rows_of(table, "vision.proj_mlp.fc1"));
  FOVEA_TRY(vision.proj_out_dim, rows_of(table, "vision.proj_mlp.fc2"));
  vision.enc_n_layers = count_layers(table, "vision.blocks", "ln1.weight");
  vision.enc_patch_size = static_cast<int>(std::lround(std::sqrt(patch_dim / vision.in_channels)));
  grid = static_cast<int>(std::lround(std::sqrt(patches)));
  vision.crop_size = grid * vision.enc_patch_size;
  return {};
}

Status read_region_dims(const TensorTable& table, RegionConfig& region) {
  FOVEA_TRY(region.dim, rows_of(table, "region.coord_encoder"));
  FOVEA_TRY(region.coord_feat_dim, dim_of(table, "region.coord_encoder.weight", 2, 1));
  FOVEA_TRY(region.size_feat_dim, dim_of(table, "region.size_encoder.weight", 2, 1));
  region.linear_decoder = table.contains("region.coord_decoder.bias");
  region.use_ln = table.contains("region.ln.weight");
  if (region.linear_decoder) {
    FOVEA_TRY(region.coord_out_dim, rows_of(table, "region.coord_decoder"));
    FOVEA_TRY(region.size_out_dim, rows_of(table, "region.size_decoder"));
    return {};
  }
  FOVEA_TRY(region.inner_dim, rows_of(table, "region.coord_decoder.fc1"));
  FOVEA_TRY(region.coord_out_dim, rows_of(table, "region.coord_decoder.fc2"));
  FOVEA_TRY(region.size_out_dim, rows_of(table, "region.size_decoder.fc2"));
  return {};
}

Status check(bool condition, std::string_view field, std::int64_t value, std::string_view rule) {
  if (condition) return {};
  return invalid_argument("configuration: {} = {} {}", field, value, rule);
}

Status check_positive(std::initializer_list<std::pair<std::string_view, int>> fields) {
  for (const auto& [name, value] : fields) {
    FOVEA_TRY_STATUS(check(value > 0 && value <= kMaxDim, name, value,
                           fmt::format("must lie in 1..{}", kMaxDim)));
  }
  return {};
}

Status validate_text(const TextConfig& text) {
  FOVEA_TRY_STATUS(check_positive({{"text.dim", text.dim},
                                   {"text.n_layers", text.n_layers},
                                   {"text.vocab_size", text.vocab_size},
                                   {"text.max_context", text.max_context},
                                   {"text.n_heads", text.n_heads},
                                   {"text.n_kv_heads", text.n_kv_heads},
                                   {"text.prefix_attn", text.prefix_attn}}));
  FOVEA_TRY_STATUS(
      check(text.n_layers <= kMaxLayers, "text.n_layers", text.n_layers, "exceeds 1024"));
  FOVEA_TRY_STATUS(check(text.dim % text.n_heads == 0, "text.n_heads", text.n_heads,
                         "does not divide text.dim"));
  FOVEA_TRY_STATUS(check(text.n_heads % text.n_kv_heads == 0, "text.n_kv_heads", text.n_kv_heads,
                         "does not divide text.n_heads"));
  FOVEA_TRY_STATUS(check(text.head_dim() % 8 == 0 && text.head_dim() <= 256, "head dimension",
                         text.head_dim(), "must be a multiple of 8, at most 256"));
  FOVEA_TRY_STATUS(check(text.prefix_attn < text.max_context, "text.prefix_attn", text.prefix_attn,
                         "leaves no room in text.max_context"));
  FOVEA_TRY_STATUS(check(!text.tau || text.n_heads == text.n_kv_heads, "text.n_kv_heads",
                         text.n_kv_heads, "must equal text.n_heads when text.tau is set"));
  const bool has_dense = !text.moe || text.moe->start_layer > 0;
  if (has_dense) FOVEA_TRY_STATUS(check_positive({{"text.ff_dim", text.ff_dim}}));
  if (!text.moe) return {};
  FOVEA_TRY_STATUS(check_positive({{"text.moe.num_experts", text.moe->num_experts},
                                   {"text.moe.expert_inner_dim", text.moe->expert_inner_dim},
                                   {"text.moe.experts_per_token", text.moe->experts_per_token}}));
  FOVEA_TRY_STATUS(check(text.moe->experts_per_token <= text.moe->num_experts,
                         "text.moe.experts_per_token", text.moe->experts_per_token,
                         "exceeds text.moe.num_experts"));
  return check(text.moe->start_layer >= 0 && text.moe->start_layer < text.n_layers,
               "text.moe.start_layer", text.moe->start_layer, "is no layer");
}

Status validate_vision(const VisionConfig& vision, const TextConfig& text) {
  FOVEA_TRY_STATUS(check_positive({{"vision.enc_dim", vision.enc_dim},
                                   {"vision.enc_ff_dim", vision.enc_ff_dim},
                                   {"vision.enc_n_layers", vision.enc_n_layers},
                                   {"vision.enc_n_heads", vision.enc_n_heads},
                                   {"vision.enc_patch_size", vision.enc_patch_size},
                                   {"vision.crop_size", vision.crop_size},
                                   {"vision.max_crops", vision.max_crops},
                                   {"vision.proj_inner_dim", vision.proj_inner_dim}}));
  FOVEA_TRY_STATUS(
      check(vision.in_channels == 3, "vision.in_channels", vision.in_channels, "must be 3 (RGB)"));
  FOVEA_TRY_STATUS(
      check(vision.crop_size <= 4096, "vision.crop_size", vision.crop_size, "exceeds 4096 pixels"));
  FOVEA_TRY_STATUS(check(vision.crop_size % vision.enc_patch_size == 0, "vision.crop_size",
                         vision.crop_size, "is no multiple of vision.enc_patch_size"));
  FOVEA_TRY_STATUS(check(vision.enc_dim % vision.enc_n_heads == 0, "vision.enc_n_heads",
                         vision.enc_n_heads, "does not divide vision.enc_dim"));
  const int head_dim = vision.enc_dim / vision.enc_n_heads;
  FOVEA_TRY_STATUS(check(head_dim % 8 == 0 && head_dim <= 256, "vision head dimension", head_dim,
                         "must be a multiple of 8, at most 256"));
  FOVEA_TRY_STATUS(check(vision.overlap_margin >= 0 && 2 * vision.overlap_margin < vision.grid(),
                         "vision.overlap_margin", vision.overlap_margin,
                         "leaves nothing of a crop"));
  FOVEA_TRY_STATUS(check(vision.proj_out_dim == text.dim, "vision.proj_out_dim",
                         vision.proj_out_dim, "differs from text.dim"));
  return check(text.prefix_attn == 1 + vision.image_tokens(), "text.prefix_attn", text.prefix_attn,
               fmt::format("must be 1 + {} (BOS and one position a patch)", vision.image_tokens()));
}

Status validate_region(const RegionConfig& region, const TextConfig& text) {
  FOVEA_TRY_STATUS(check_positive({{"region.coord_feat_dim", region.coord_feat_dim},
                                   {"region.coord_out_dim", region.coord_out_dim},
                                   {"region.size_feat_dim", region.size_feat_dim},
                                   {"region.size_out_dim", region.size_out_dim}}));
  FOVEA_TRY_STATUS(
      check(region.dim == text.dim, "region.dim", region.dim, "differs from text.dim"));
  FOVEA_TRY_STATUS(check(region.coord_feat_dim % 2 == 0, "region.coord_feat_dim",
                         region.coord_feat_dim, "is odd"));
  FOVEA_TRY_STATUS(
      check(region.size_feat_dim % 2 == 0, "region.size_feat_dim", region.size_feat_dim, "is odd"));
  FOVEA_TRY_STATUS(check(region.size_out_dim % 2 == 0 && region.size_out_dim >= 4,
                         "region.size_out_dim", region.size_out_dim,
                         "must hold width and height bins"));
  if (region.linear_decoder) return {};
  return check_positive({{"region.inner_dim", region.inner_dim}});
}

Status validate_prompts(const PromptConfig& prompts, int vocab_size) {
  const auto in_range = [&](TokenId id) -> Status {
    return check(id.value() >= 0 && id.value() < vocab_size, "tokenizer id", id.value(),
                 fmt::format("is no row of a vocabulary of {}", vocab_size));
  };
  const auto all_in_range = [&](const std::vector<TokenId>& ids) -> Status {
    for (const TokenId id : ids) FOVEA_TRY_STATUS(in_range(id));
    return {};
  };
  for (const auto& id :
       {std::optional(prompts.bos), std::optional(prompts.eos), prompts.answer, prompts.thinking,
        prompts.coord, prompts.size, prompts.start_ground_points, prompts.end_ground}) {
    if (id) FOVEA_TRY_STATUS(in_range(*id));
  }
  for (const auto* ids :
       {&prompts.caption_short, &prompts.caption_normal, &prompts.caption_long,
        &prompts.answer_opener, &prompts.reasoning_opener, &prompts.post_reasoning,
        &prompts.answer_suppressed, &prompts.reasoning_suppressed}) {
    FOVEA_TRY_STATUS(all_in_range(*ids));
  }
  for (const auto* skill : {&prompts.query, &prompts.detect, &prompts.point}) {
    if (!skill->has_value()) continue;
    FOVEA_TRY_STATUS(all_in_range((*skill)->prefix));
    FOVEA_TRY_STATUS(all_in_range((*skill)->suffix));
  }
  return {};
}

}  // namespace

Result<ModelConfig> resolve_config(const Checkpoint& checkpoint, const json::value* config_json) {
  const TensorTable table(checkpoint);
  ModelConfig config;
  int grid = 0;
  FOVEA_TRY_STATUS(read_text_dims(table, config.text));
  FOVEA_TRY_STATUS(read_vision_dims(table, config.vision, grid));
  FOVEA_TRY_STATUS(read_region_dims(table, config.region));
  config.text.prefix_attn = 1 + grid * grid;
  describe_family(table.is_legacy(), config);
  if (config_json != nullptr) FOVEA_TRY_STATUS(apply_config_json(*config_json, config));
  FOVEA_TRY_STATUS(
      check(config.text.n_heads > 0, "text.n_heads", config.text.n_heads, "must be positive"));
  // The QKV matrix knows the number of KV heads whatever the descriptions say.
  FOVEA_TRY(const int qkv_rows, rows_of(table, "text.blocks.0.attn.qkv"));
  FOVEA_TRY_STATUS(derive_kv_heads(qkv_rows, config.text));
  FOVEA_TRY_STATUS(validate_text(config.text));
  FOVEA_TRY_STATUS(validate_vision(config.vision, config.text));
  FOVEA_TRY_STATUS(validate_region(config.region, config.text));
  FOVEA_TRY_STATUS(validate_prompts(config.prompts, config.text.vocab_size));
  return config;
}

}  // namespace fovea
