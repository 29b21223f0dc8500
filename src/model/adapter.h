#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "fovea/result.h"

#include "model/config.h"
#include "tensor/dtype.h"

namespace fovea {

/// The linears of a text layer that a LoRA adapter may change. Vision, region, router, embedding
/// and head are never adapted.
enum class LoraTarget : std::uint8_t { kQkv, kProj, kFc1, kFc2, kExpertsUp, kExpertsDown };
inline constexpr std::size_t kNumLoraTargets = 6;

/// Sizes of such a linear.
struct LoraShape {
  std::int64_t num_experts = 1;  ///< 1 = not routed
  std::int64_t inputs = 0;
  std::int64_t outputs = 0;
};

/// Nothing where the layer has no such linear: a layer has a dense MLP or experts.
std::optional<LoraShape> lora_shape(const TextConfig& config, int layer, LoraTarget target);

/// One low-rank update: y += b^T (a x), without a further factor.
struct LoraPair {
  int rank = 0;              ///< of each expert where there are several; 0 = not adapted
  std::vector<std::byte> a;  ///< [experts, rank, inputs]
  std::vector<std::byte> b;  ///< [experts, rank, outputs], transposed from the file
};

/// An adapter in host memory, in the layout and element type that AdapterSlots takes it over in.
struct Adapter {
  DType dtype = DType::kF32;  ///< f32 or bf16
  int rank = 0;               ///< the largest of its pairs; experts count experts_per_token times
  std::vector<std::array<LoraPair, kNumLoraTargets>> layers;

  const LoraPair& pair(int layer, LoraTarget target) const {
    return layers[static_cast<std::size_t>(layer)][static_cast<std::size_t>(target)];
  }
  std::size_t size_bytes() const;
};

/// The largest rank of an adapter.
inline constexpr int kMaxLoraRank = 512;

/// Reads an adapter for a model of this configuration from safetensors: a file, or a folder as
/// Checkpoint::open takes it. `storage` is the model's (f32 or bf16). Reads the whole file; calls
/// from several threads do not share anything.
///
/// Two layouts are known, both with f32, bf16 or f16 elements and without a factor alpha / rank:
///
/// - Variants (Moondream 2; vikhyat/moondream, lora.py): text.blocks.N.{attn.qkv, attn.proj,
///   mlp.fc1, mlp.fc2}.A [rank, inputs] and .B [outputs, rank], also under the older names
///   text_model.transformer.h.N.mixer.{Wqkv, out_proj} and with .parametrizations.weight.0. Every
///   layer must be there; each pair may have a rank of its own. Layers with experts have no pair
///   for their MLP, and what the file holds for it is left out, as upstream leaves it out. `proj`
///   reads the block's normed input, not the attention's output: these files were trained so.
/// - Fine-tunes (kestrel, lora.py): text_lora.dense.N.{up_a [rank, dim], up_b [ff, rank], down_a
///   [rank, ff], down_b [dim, rank]} on fc1 and fc2 of layer N, and text_lora.moe.N.{up_a, up_b,
///   down_a, down_b} with a leading dimension of experts and rank / experts_per_token, on the
///   experts of layer start_layer + N. The prefix may be text_lora., _text., or missing; equal
///   tensors under two of them count once. One rank for all; a layer that is absent stays as it
///   is. vision_lora.* is left out, as upstream never applies it.
///
/// Errors name the file and the tensor, what was found and what was wanted: kNotFound for the path,
/// kUnsupported for PyTorch pickles, kInvalidArgument for everything else.
Result<Adapter> load_adapter(const std::filesystem::path& path, const ModelConfig& config,
                             DType storage);

}  // namespace fovea
