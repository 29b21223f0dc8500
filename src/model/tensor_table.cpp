#include "model/tensor_table.h"

#include <array>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/try.h"

namespace fovea {
namespace {

struct Rename {
  std::string_view current;
  std::string_view legacy;
};

// Whole names or prefixes outside the numbered blocks. The first match counts, so longer ones come
// first.
constexpr std::array kRenames = std::to_array<Rename>({
    {"vision.patch_emb.", "vision_encoder.encoder.model.visual.patch_embed.linear."},
    {"vision.pos_emb", "vision_encoder.encoder.model.visual.pos_embed"},
    {"vision.post_ln.", "vision_encoder.encoder.model.visual.norm."},
    {"vision.proj_mlp.", "vision_encoder.projection.mlp."},
    {"text.wte", "text_model.transformer.embd.wte.weight"},
    {"text.post_ln.", "text_model.lm_head.ln."},
    {"text.lm_head.", "text_model.lm_head.linear."},
    {"region.coord_encoder.", "region_model.coordinate_encoder."},
    {"region.size_encoder.", "region_model.size_encoder."},
    {"region.coord_decoder.fc", "region_model.coordinate_decoder.fc"},
    {"region.size_decoder.fc", "region_model.size_decoder.fc"},
    {"region.coord_decoder.", "region_model.coordinate_head."},
    {"region.size_decoder.", "region_model.size_head."},
    {"region.ln.", "region_model.ln."},
    {"region.coord_features", "region_model.coordinate_features.weight"},
    {"region.size_features", "region_model.size_features.weight"},
});

// Parts of a block's name after its number.
constexpr std::array kVisionBlockRenames = std::to_array<Rename>({
    {"ln1.", "norm1."},
    {"ln2.", "norm2."},
    {"", ""},
});
constexpr std::array kTextBlockRenames = std::to_array<Rename>({
    {"attn.qkv.", "mixer.Wqkv."},
    {"attn.proj.", "mixer.out_proj."},
    {"attn.tau.wqwv", "tau_wqwv"},
    {"attn.tau.wq", "tau_wq"},
    {"attn.tau.wv", "tau_wv"},
    {"attn.tau.alpha", "tau_alpha"},
    {"mlp.router.", "gate."},
    {"", ""},
});

template <std::size_t N>
std::string rename_start(std::string_view name, const std::array<Rename, N>& renames) {
  for (const auto& [current, legacy] : renames) {
    if (name.starts_with(current))
      return std::string(legacy) + std::string(name.substr(current.size()));
  }
  return {};
}

// "text.blocks.12.attn.qkv.weight" -> "12" and "attn.qkv.weight"; empty number when `name` is no
// block of `stem`.
std::pair<std::string_view, std::string_view> split_block(std::string_view name,
                                                          std::string_view stem) {
  if (!name.starts_with(stem)) return {};
  const std::string_view rest = name.substr(stem.size());
  const std::size_t dot = rest.find('.');
  if (dot == std::string_view::npos) return {};
  return {rest.substr(0, dot), rest.substr(dot + 1)};
}

}  // namespace

std::vector<std::string> legacy_spellings(std::string_view name) {
  if (const auto [number, tail] = split_block(name, "vision.blocks."); !number.empty()) {
    return {fmt::format("vision_encoder.encoder.model.visual.blocks.{}.{}", number,
                        rename_start(tail, kVisionBlockRenames))};
  }
  if (const auto [number, tail] = split_block(name, "text.blocks."); !number.empty()) {
    const std::string stem = fmt::format("text_model.transformer.h.{}.", number);
    std::vector<std::string> spellings{stem + rename_start(tail, kTextBlockRenames)};
    if (tail == "mlp.fc1.weight") spellings.push_back(stem + "mlp.experts.weight");
    if (tail == "mlp.fc2.weight") spellings.push_back(stem + "mlp.output_experts.weight");
    return spellings;
  }
  std::string renamed = rename_start(name, kRenames);
  if (renamed.empty()) return {};
  return {std::move(renamed)};
}

Result<TensorTable::Found> TensorTable::find(std::string_view name) const {
  Found found;
  const auto consider = [&](const std::string& spelling, bool legacy) -> Status {
    const TensorEntry* entry = checkpoint_.find(spelling);
    if (entry == nullptr) return {};
    if (found.entry != nullptr) {
      return invalid_argument("the checkpoint holds tensor {} twice: as {} and as {}", name,
                              found.entry->name, entry->name);
    }
    found = {entry, legacy};
    return {};
  };
  FOVEA_TRY_STATUS(consider("model." + std::string(name), false));
  FOVEA_TRY_STATUS(consider(std::string(name), false));
  for (const std::string& spelling : legacy_spellings(name))
    FOVEA_TRY_STATUS(consider(spelling, true));
  return found;
}

Result<TensorTable::Found> TensorTable::require(std::string_view name) const {
  FOVEA_TRY(const Found found, find(name));
  if (found.entry != nullptr) return found;
  std::vector<std::string> tried{"model." + std::string(name)};
  for (std::string& spelling : legacy_spellings(name)) tried.push_back(std::move(spelling));
  return error(ErrorCode::kNotFound, "the checkpoint has no tensor {} (nor {})", name,
               fmt::join(tried, ", "));
}

bool TensorTable::contains(std::string_view name) const {
  const auto found = find(name);
  return !found.ok() || found->entry != nullptr;
}

bool TensorTable::is_legacy() const {
  const auto found = find("text.wte");
  return found.ok() && found->legacy_spelling;
}

}  // namespace fovea
