#include "model/adapter.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/try.h"
#include "io/checkpoint.h"
#include "model/weight_loader.h"
#include "tensor/half.h"

namespace fovea {
namespace {

enum class Layout { kVariant, kFinetune };

// What one tensor of a file is for.
struct Role {
  Layout layout;
  int number;  // as the file counts layers
  LoraTarget target;
  bool is_b;
};

struct Tail {
  std::string_view name;
  LoraTarget target;
};
constexpr Tail kVariantTails[] = {{"attn.qkv", LoraTarget::kQkv},
                                  {"attn.proj", LoraTarget::kProj},
                                  {"mlp.fc1", LoraTarget::kFc1},
                                  {"mlp.fc2", LoraTarget::kFc2}};
constexpr Tail kDenseTails[] = {{"up", LoraTarget::kFc1}, {"down", LoraTarget::kFc2}};
constexpr Tail kExpertTails[] = {{"up", LoraTarget::kExpertsUp},
                                 {"down", LoraTarget::kExpertsDown}};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos;
       at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

bool strip_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

bool strip_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

// "12.rest" -> 12, leaving "rest".
std::optional<int> take_number(std::string_view& text) {
  int number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failure != std::errc() || number < 0 || end == text.data() + text.size() || *end != '.')
    return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
  return number;
}

template <std::size_t N>
std::optional<Role> match_tail(Layout layout, std::string_view rest, const Tail (&tails)[N],
                               std::string_view a, std::string_view b) {
  const std::optional<int> number = take_number(rest);
  const bool is_b = strip_suffix(rest, b);
  if (!number || (!is_b && !strip_suffix(rest, a))) return std::nullopt;
  for (const auto& [name, target] : tails) {
    if (rest == name) return Role{layout, *number, target, is_b};
  }
  return std::nullopt;
}

std::optional<Role> role_of(const std::string& tensor) {
  std::string renamed = tensor;
  replace_all(renamed, "text_model.transformer.h", "text.blocks");
  replace_all(renamed, ".mixer", ".attn");
  replace_all(renamed, ".out_proj", ".proj");
  replace_all(renamed, ".Wqkv", ".qkv");
  replace_all(renamed, ".parametrizations.weight.0", "");
  std::string_view name = renamed;
  if (strip_prefix(name, "text.blocks."))
    return match_tail(Layout::kVariant, name, kVariantTails, ".A", ".B");
  name = tensor;
  if (!strip_prefix(name, "text_lora.")) strip_prefix(name, "_text.");
  if (strip_prefix(name, "dense."))
    return match_tail(Layout::kFinetune, name, kDenseTails, "_a", "_b");
  if (strip_prefix(name, "moe."))
    return match_tail(Layout::kFinetune, name, kExpertTails, "_a", "_b");
  return std::nullopt;
}

bool is_for_experts(LoraTarget target) {
  return target == LoraTarget::kExpertsUp || target == LoraTarget::kExpertsDown;
}

/// The pairs of one file, found and checked before any element is read.
class AdapterReader {
 public:
  AdapterReader(std::string file, const Checkpoint& checkpoint, const TextConfig& config)
      : file_(std::move(file)), checkpoint_(checkpoint), config_(config) {}

  Result<Adapter> read(DType storage) {
    for (const TensorEntry& entry : checkpoint_.tensors()) FOVEA_TRY_STATUS(place(entry));
    if (pairs_.empty()) return invalid_argument("{} holds no tensor of an adapter", file_);
    FOVEA_TRY_STATUS(check_complete());
    if (layout_ == Layout::kFinetune) FOVEA_TRY_STATUS(find_common_rank());
    Adapter adapter;
    adapter.dtype = storage;
    adapter.layers.resize(static_cast<std::size_t>(config_.n_layers));
    for (const auto& [place, pair] : pairs_) {
      const auto [layer, target] = place;
      FOVEA_TRY(LoraPair loaded, load_pair(layer, target, pair, storage));
      adapter.rank = std::max(adapter.rank, loaded.rank * parts_of(target));
      adapter.layers[static_cast<std::size_t>(layer)][static_cast<std::size_t>(target)] =
          std::move(loaded);
    }
    return adapter;
  }

 private:
  struct FilePair {
    const TensorEntry* a = nullptr;
    const TensorEntry* b = nullptr;
  };

  // Finds what a tensor is for.
  Status place(const TensorEntry& entry) {
    if (entry.name.starts_with("vision_lora.")) return {};
    const std::optional<Role> role = role_of(entry.name);
    if (!role) {
      return invalid_argument(
          "{}: tensor {} belongs to no adapter known here; wanted text.blocks.N.{{attn.qkv, "
          "attn.proj, mlp.fc1, mlp.fc2}}.{{A, B}} or text_lora.{{dense, moe}}.N.{{up, "
          "down}}_{{a, b}}",
          file_, entry.name);
    }
    if (first_ != nullptr && layout_ != role->layout) {
      return invalid_argument("{} mixes two layouts of adapters: tensor {} and tensor {}", file_,
                              first_->name, entry.name);
    }
    layout_ = role->layout;
    first_ = first_ == nullptr ? &entry : first_;
    FOVEA_TRY(const int layer, layer_of(*role, entry));
    if (!lora_shape(config_, layer, role->target)) {
      if (layout_ == Layout::kVariant) return {};  // the MLP of a layer with experts
      return invalid_argument("{}: tensor {} is for a dense MLP, but layer {} has experts", file_,
                              entry.name, layer);
    }
    FilePair& pair = pairs_[{layer, role->target}];
    const TensorEntry*& half = role->is_b ? pair.b : pair.a;
    if (half != nullptr && !(half->dtype == entry.dtype && half->shape == entry.shape &&
                             std::ranges::equal(half->bytes, entry.bytes))) {
      return invalid_argument("{}: tensors {} and {} stand for the same one and differ", file_,
                              half->name, entry.name);
    }
    half = half == nullptr ? &entry : half;
    return {};
  }

  Result<int> layer_of(const Role& role, const TensorEntry& entry) const {
    const bool experts = is_for_experts(role.target);
    if (experts && !config_.moe)
      return invalid_argument("{}: tensor {} is for experts, and the model has none", file_,
                              entry.name);
    const int first = experts ? config_.moe->start_layer : 0;
    if (role.number >= config_.n_layers - first) {
      return invalid_argument("{}: tensor {}: layer {} found, 0 to {} wanted", file_, entry.name,
                              role.number, config_.n_layers - first - 1);
    }
    return first + role.number;
  }

  // Both halves of every pair; every layer of a variant.
  Status check_complete() const {
    for (const auto& [place, pair] : pairs_) {
      if (pair.a != nullptr && pair.b != nullptr) continue;
      const TensorEntry& half = pair.a != nullptr ? *pair.a : *pair.b;
      return invalid_argument("{}: tensor {} has no partner {}", file_, half.name,
                              partner_name(half.name));
    }
    if (layout_ != Layout::kVariant) return {};
    for (int layer = 0; layer < config_.n_layers; ++layer) {
      for (const auto& [name, target] : kVariantTails) {
        if (!lora_shape(config_, layer, target) || pairs_.contains({layer, target})) continue;
        return invalid_argument("{} has no tensor text.blocks.{}.{}.A; every layer is wanted",
                                file_, layer, name);
      }
    }
    return {};
  }

  static std::string partner_name(std::string name) {
    switch (name.back()) {
      case 'A':
        name.back() = 'B';
        break;
      case 'B':
        name.back() = 'A';
        break;
      default:
        name.back() = name.back() == 'a' ? 'b' : 'a';
    }
    return name;
  }

  int parts_of(LoraTarget target) const {
    return is_for_experts(target) ? config_.moe->experts_per_token : 1;
  }

  // The rank of a fine-tune: of its first dense up_a, or else of its first expert up_a, where each
  // expert has a part of it.
  Status find_common_rank() {
    const auto is_dense = [](const auto& item) { return !is_for_experts(item.first.second); };
    const bool has_experts = !std::ranges::all_of(pairs_, is_dense);
    auto first = std::ranges::find_if(pairs_, is_dense);
    if (first == pairs_.end()) first = pairs_.begin();
    const LoraTarget target = first->first.second;
    FOVEA_TRY(const std::int64_t rank, rank_of(*first->second.a, target));
    common_rank_ = static_cast<int>(rank) * parts_of(target);
    if (has_experts && common_rank_ % config_.moe->experts_per_token != 0) {
      return invalid_argument(
          "{}: tensor {}: rank {} found, a multiple of the {} experts per "
          "token wanted",
          file_, first->second.a->name, common_rank_, config_.moe->experts_per_token);
    }
    return {};
  }

  // The size of the rank's dimension, within limits; the other dimensions are checked later.
  Result<std::int64_t> rank_of(const TensorEntry& a, LoraTarget target) const {
    const int dimensions = is_for_experts(target) ? 3 : 2;
    const int limit = kMaxLoraRank / parts_of(target);
    const std::int64_t rank = a.shape.rank() == dimensions ? a.shape[dimensions - 2] : 0;
    if (rank < 1 || rank > limit) {
      return invalid_argument(
          "{}: tensor {}: shape {} found, {} dimensions and a rank of 1 to {} wanted", file_,
          a.name, a.shape.to_string(), dimensions, limit);
    }
    return rank;
  }

  Result<LoraPair> load_pair(int layer, LoraTarget target, const FilePair& pair,
                             DType storage) const {
    const LoraShape shape = *lora_shape(config_, layer, target);
    std::int64_t rank = common_rank_ / parts_of(target);
    if (layout_ == Layout::kVariant) {
      FOVEA_TRY(rank, rank_of(*pair.a, target));
    }
    Shape wanted_a{rank, shape.inputs}, wanted_b{shape.outputs, rank};
    if (is_for_experts(target)) {
      wanted_a = {shape.num_experts, rank, shape.inputs};
      wanted_b = {shape.num_experts, shape.outputs, rank};
    }
    LoraPair loaded;
    loaded.rank = static_cast<int>(rank);
    FOVEA_TRY(const std::vector<float> a, values(*pair.a, wanted_a));
    loaded.a = stored(a, storage);
    FOVEA_TRY(const std::vector<float> b, values(*pair.b, wanted_b));
    loaded.b = stored(transposed(b, shape, rank), storage);
    return loaded;
  }

  Result<std::vector<float>> values(const TensorEntry& entry, const Shape& wanted) const {
    if (entry.shape != wanted) {
      return invalid_argument("{}: tensor {}: shape {} found, {} wanted", file_, entry.name,
                              entry.shape.to_string(), wanted.to_string());
    }
    if (entry.dtype != DType::kF32 && entry.dtype != DType::kBf16 && entry.dtype != DType::kF16) {
      return invalid_argument("{}: tensor {}: element type {} found, f32, bf16 or f16 wanted",
                              file_, entry.name, dtype_name(entry.dtype));
    }
    FOVEA_TRY(std::vector<float> values, to_f32(entry));
    checkpoint_.release(entry.bytes);
    return values;
  }

  // [experts, outputs, rank] -> [experts, rank, outputs].
  static std::vector<float> transposed(const std::vector<float>& b, const LoraShape& shape,
                                       std::int64_t rank) {
    const auto outputs = static_cast<std::size_t>(shape.outputs);
    const auto ranks = static_cast<std::size_t>(rank);
    std::vector<float> turned(b.size());
    for (std::size_t base = 0; base < b.size(); base += outputs * ranks) {
      for (std::size_t o = 0; o < outputs; ++o) {
        for (std::size_t j = 0; j < ranks; ++j)
          turned[base + j * outputs + o] = b[base + o * ranks + j];
      }
    }
    return turned;
  }

  static std::vector<std::byte> stored(const std::vector<float>& values, DType storage) {
    std::vector<std::byte> bytes(values.size() * dtype_size(storage));
    if (storage == DType::kF32) {
      std::memcpy(bytes.data(), values.data(), bytes.size());
      return bytes;
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint16_t bits = f32_to_bf16(values[i]);
      std::memcpy(bytes.data() + i * sizeof(bits), &bits, sizeof(bits));
    }
    return bytes;
  }

  std::string file_;
  const Checkpoint& checkpoint_;
  const TextConfig& config_;
  const TensorEntry* first_ = nullptr;  // decided the layout
  Layout layout_ = Layout::kVariant;
  int common_rank_ = 0;  // of a fine-tune
  std::map<std::pair<int, LoraTarget>, FilePair> pairs_;
};

}  // namespace

std::optional<LoraShape> lora_shape(const TextConfig& config, int layer, LoraTarget target) {
  const bool has_experts = config.is_moe_layer(layer);
  if (has_experts != is_for_experts(target) && target != LoraTarget::kQkv &&
      target != LoraTarget::kProj) {
    return std::nullopt;
  }
  switch (target) {
    case LoraTarget::kQkv:
      return LoraShape{1, config.dim, config.qkv_dim()};
    case LoraTarget::kProj:
      return LoraShape{1, config.dim, config.dim};
    case LoraTarget::kFc1:
      return LoraShape{1, config.dim, config.ff_dim};
    case LoraTarget::kFc2:
      return LoraShape{1, config.ff_dim, config.dim};
    case LoraTarget::kExpertsUp:
      return LoraShape{config.moe->num_experts, config.dim, 2 * config.moe->expert_inner_dim};
    case LoraTarget::kExpertsDown:
      return LoraShape{config.moe->num_experts, config.moe->expert_inner_dim, config.dim};
  }
  return std::nullopt;
}

std::size_t Adapter::size_bytes() const {
  std::size_t total = 0;
  for (const auto& layer : layers) {
    for (const LoraPair& pair : layer) total += pair.a.size() + pair.b.size();
  }
  return total;
}

Result<Adapter> load_adapter(const std::filesystem::path& path, const ModelConfig& config,
                             DType storage) {
  FOVEA_CHECK(storage == DType::kF32 || storage == DType::kBf16, "adapters in {}",
              dtype_name(storage));
  FOVEA_TRY(const Checkpoint checkpoint, Checkpoint::open(path));
  AdapterReader reader(path.string(), checkpoint, config.text);
  return reader.read(storage);
}

}  // namespace fovea
