#include "model/config_json.h"

#include <limits>

#include "base/error.h"
#include "base/json.h"
#include "base/try.h"
#include "model/families.h"

namespace fovea {
namespace {

/// One object of the document, with its name for error messages.
class Section {
 public:
  Section(const json::object& object, std::string name) : object_(object), name_(std::move(name)) {}

  const json::value* find(std::string_view key) const { return object_.if_contains(key); }
  std::string path(std::string_view key) const {
    return name_.empty() ? std::string(key) : fmt::format("{}.{}", name_, key);
  }

  Status read(std::string_view key, int& out) const {
    const json::value* value = find(key);
    if (value == nullptr || value->is_null()) return {};
    if (!value->is_int64() || value->get_int64() < 0 ||
        value->get_int64() > std::numeric_limits<int>::max()) {
      return invalid_argument("config.json: {} must be a whole number from 0 to 2147483647",
                              path(key));
    }
    out = static_cast<int>(value->get_int64());
    return {};
  }

  Status read(std::string_view key, double& out) const {
    const json::value* value = find(key);
    if (value == nullptr || value->is_null()) return {};
    if (!value->is_number() || value->to_number<double>() <= 0) {
      return invalid_argument("config.json: {} must be a positive number", path(key));
    }
    out = value->to_number<double>();
    return {};
  }

  Status read(std::string_view key, bool& out) const {
    const json::value* value = find(key);
    if (value == nullptr || value->is_null()) return {};
    if (!value->is_bool())
      return invalid_argument("config.json: {} must be true or false", path(key));
    out = value->get_bool();
    return {};
  }

  Status read(std::string_view key, std::optional<TokenId>& out) const {
    if (find(key) == nullptr) return {};
    int id = out ? out->value() : 0;
    FOVEA_TRY_STATUS(read(key, id));
    out = TokenId{id};
    return {};
  }

  Status read(std::string_view key, std::vector<TokenId>& out) const {
    const json::value* value = find(key);
    if (value == nullptr || value->is_null()) return {};
    if (!value->is_array() || value->get_array().size() > 256) {
      return invalid_argument("config.json: {} must be a list of at most 256 token ids", path(key));
    }
    out.clear();
    for (const json::value& item : value->get_array()) {
      if (!item.is_int64() || item.get_int64() < 0 ||
          item.get_int64() > std::numeric_limits<int>::max()) {
        return invalid_argument("config.json: {} must hold token ids", path(key));
      }
      out.emplace_back(static_cast<int>(item.get_int64()));
    }
    return {};
  }

  /// The object under `key`; nothing when it is absent or null.
  Result<std::optional<Section>> section(std::string_view key) const {
    const json::value* value = find(key);
    if (value == nullptr || value->is_null()) return std::optional<Section>{};
    if (!value->is_object())
      return invalid_argument("config.json: {} must be an object", path(key));
    return std::optional<Section>(Section(value->get_object(), path(key)));
  }

 private:
  const json::object& object_;
  std::string name_;
};

Status apply_text(const Section& section, TextConfig& text) {
  FOVEA_TRY_STATUS(section.read("dim", text.dim));
  FOVEA_TRY_STATUS(section.read("ff_dim", text.ff_dim));
  FOVEA_TRY_STATUS(section.read("n_layers", text.n_layers));
  FOVEA_TRY_STATUS(section.read("vocab_size", text.vocab_size));
  FOVEA_TRY_STATUS(section.read("max_context", text.max_context));
  FOVEA_TRY_STATUS(section.read("n_heads", text.n_heads));
  FOVEA_TRY_STATUS(section.read("prefix_attn", text.prefix_attn));
  FOVEA_TRY_STATUS(section.read("rope_theta", text.rope_theta));
  FOVEA_TRY_STATUS(section.read("tau", text.tau));
  FOVEA_TRY(const auto moe, section.section("moe"));
  if (!moe) return {};
  if (!text.moe) text.moe.emplace();
  FOVEA_TRY_STATUS(moe->read("num_experts", text.moe->num_experts));
  FOVEA_TRY_STATUS(moe->read("start_layer", text.moe->start_layer));
  FOVEA_TRY_STATUS(moe->read("experts_per_token", text.moe->experts_per_token));
  return moe->read("expert_inner_dim", text.moe->expert_inner_dim);
}

Status apply_vision(const Section& section, VisionConfig& vision) {
  FOVEA_TRY_STATUS(section.read("enc_dim", vision.enc_dim));
  FOVEA_TRY_STATUS(section.read("enc_ff_dim", vision.enc_ff_dim));
  FOVEA_TRY_STATUS(section.read("enc_n_layers", vision.enc_n_layers));
  FOVEA_TRY_STATUS(section.read("enc_n_heads", vision.enc_n_heads));
  FOVEA_TRY_STATUS(section.read("enc_patch_size", vision.enc_patch_size));
  FOVEA_TRY_STATUS(section.read("crop_size", vision.crop_size));
  FOVEA_TRY_STATUS(section.read("in_channels", vision.in_channels));
  FOVEA_TRY_STATUS(section.read("max_crops", vision.max_crops));
  FOVEA_TRY_STATUS(section.read("overlap_margin", vision.overlap_margin));
  FOVEA_TRY_STATUS(section.read("proj_inner_dim", vision.proj_inner_dim));
  return section.read("proj_out_dim", vision.proj_out_dim);
}

Status apply_region(const Section& section, RegionConfig& region) {
  FOVEA_TRY_STATUS(section.read("dim", region.dim));
  FOVEA_TRY_STATUS(section.read("coord_feat_dim", region.coord_feat_dim));
  FOVEA_TRY_STATUS(section.read("coord_out_dim", region.coord_out_dim));
  FOVEA_TRY_STATUS(section.read("size_feat_dim", region.size_feat_dim));
  FOVEA_TRY_STATUS(section.read("size_out_dim", region.size_out_dim));
  FOVEA_TRY_STATUS(section.read("inner_dim", region.inner_dim));
  FOVEA_TRY_STATUS(section.read("use_ln", region.use_ln));
  if (const json::value* decoder = section.find("decoder");
      decoder != nullptr && !decoder->is_null()) {
    if (!decoder->is_string() ||
        (decoder->get_string() != "linear" && decoder->get_string() != "mlp")) {
      return invalid_argument("config.json: region.decoder must be \"linear\" or \"mlp\"");
    }
    region.linear_decoder = decoder->get_string() == "linear";
  }
  return {};
}

Status read_template(const Section& templates, std::string_view skill,
                     std::optional<PromptTemplate>& out) {
  FOVEA_TRY(const auto section, templates.section(skill));
  if (!section) return {};
  PromptTemplate prompt;
  FOVEA_TRY_STATUS(section->read("prefix", prompt.prefix));
  FOVEA_TRY_STATUS(section->read("suffix", prompt.suffix));
  if (prompt.prefix.empty())
    return invalid_argument("config.json: {} is missing or empty", section->path("prefix"));
  out = std::move(prompt);
  return {};
}

Status apply_tokenizer(const Section& section, bool moondream3, PromptConfig& prompts) {
  FOVEA_TRY(const auto templates, section.section("templates"));
  // Templates come with the ids of their vocabulary: nothing of the family's own description holds
  // any more.
  if (templates) prompts = PromptConfig{};
  std::optional<TokenId> bos = prompts.bos, eos = prompts.eos;
  FOVEA_TRY_STATUS(section.read("bos_id", bos));
  FOVEA_TRY_STATUS(section.read("eos_id", eos));
  prompts.bos = *bos;
  prompts.eos = *eos;
  FOVEA_TRY_STATUS(section.read("answer_id", prompts.answer));
  FOVEA_TRY_STATUS(section.read("thinking_id", prompts.thinking));
  FOVEA_TRY_STATUS(section.read("coord_id", prompts.coord));
  FOVEA_TRY_STATUS(section.read("size_id", prompts.size));
  FOVEA_TRY_STATUS(section.read("start_ground_points_id", prompts.start_ground_points));
  FOVEA_TRY_STATUS(section.read("end_ground_id", prompts.end_ground));
  if (templates) {
    FOVEA_TRY(const auto caption, templates->section("caption"));
    if (caption) {
      FOVEA_TRY_STATUS(caption->read("short", prompts.caption_short));
      FOVEA_TRY_STATUS(caption->read("normal", prompts.caption_normal));
      FOVEA_TRY_STATUS(caption->read("long", prompts.caption_long));
    }
    FOVEA_TRY_STATUS(read_template(*templates, "query", prompts.query));
    FOVEA_TRY_STATUS(read_template(*templates, "detect", prompts.detect));
    FOVEA_TRY_STATUS(read_template(*templates, "point", prompts.point));
  }
  if (prompts.query) derive_decoding_rules(prompts.query->suffix, moondream3, prompts);
  return {};
}

}  // namespace

Status apply_config_json(const json::value& document, ModelConfig& config) {
  if (!document.is_object()) return invalid_argument("config.json must hold an object");
  const Section root(document.get_object(), "");
  FOVEA_TRY(const auto text, root.section("text"));
  if (text) FOVEA_TRY_STATUS(apply_text(*text, config.text));
  FOVEA_TRY(const auto vision, root.section("vision"));
  if (vision) FOVEA_TRY_STATUS(apply_vision(*vision, config.vision));
  FOVEA_TRY(const auto region, root.section("region"));
  if (region) FOVEA_TRY_STATUS(apply_region(*region, config.region));
  FOVEA_TRY(const auto tokenizer, root.section("tokenizer"));
  if (!tokenizer) return {};
  return apply_tokenizer(*tokenizer, config.text.tau || config.text.moe.has_value(),
                         config.prompts);
}

}  // namespace fovea
