#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fovea {

/// Element type of weights.
enum class Precision {
  kAuto,  ///< what the checkpoint holds: f32 for f32 weights, else bf16
  kF32,   ///< everything in 32 bits: the yardstick for correctness
  kBf16,  ///< 16-bit storage, 32-bit accumulation
  kFp8,   ///< the large matrices in 8 bits (e4m3, one scale for each row), the rest as kBf16
  kInt4,  ///< the large matrices in 4.5 bits (codes, one scale for 16 of them), the rest as kBf16
};

/// Element type of the keys and values that sequences and the prefix cache hold.
enum class KvPrecision {
  kAuto,  ///< that of the weights
  kF32,
  kBf16,
  kInt8,  ///< codes of 8 bits with a scale for each position and head: half of bf16's memory
  kFp8,   ///< the same with e4m3 codes, which err about four times as much as kInt8
};

/// The published sources of these models disagree here and there. Each switch names both readings;
/// the default is the one that docs/compatibility.md argues for.
struct Compatibility {
  bool tau_gelu_erf = false;      ///< Moondream 3 tau: exact GELU instead of the tanh form
  bool region_gelu_erf = false;   ///< Moondream 2 region heads: exact GELU instead of the tanh form
  int coordinate_divisor = 1024;  ///< coordinate = bin / divisor; 1023 in some implementations
  bool round_outputs_to_bf16 = false;  ///< report coordinates and sizes rounded to bf16
  bool sample_coordinates =
      false;  ///< draw coordinate and size bins with the request's temperature, not argmax
  bool mask_first_token = true;  ///< suppressed ids hold for the first generated token too
  bool repeat_answer_token =
      true;  ///< Moondream 2: reasoning and answer are parted by two answer tokens, not one
  bool clamp_boxes = true;  ///< box edges are cut at the picture's border
  bool embed_text_coordinates =
      true;  ///< a coordinate inside free text is re-embedded by the region encoder, not the table
  bool pixels_in_fp32 =
      false;  ///< bf16 runs: normalise pixels in fp32, rounded once, not in three bf16 steps
  bool separate_reasoning_budget =
      false;  ///< max_tokens counts for reasoning and answer separately
};

/// Limits on pictures, checked before memory is taken.
struct PictureLimits {
  std::size_t max_bytes = std::size_t{64} << 20;
  std::int64_t max_pixels = 100'000'000;
};

struct EngineOptions {
  std::filesystem::path model;  ///< folder with weights and tokenizer, or the weights file
  std::string device = "auto";
  Precision precision = Precision::kAuto;
  KvPrecision kv_precision = KvPrecision::kAuto;
  int num_threads = 0;  ///< CPU threads; 0 = every usable processor
  std::string
      cpu_isa;  ///< force an instruction set ("generic", "avx2", ...); empty = the best there is
  /// The same request gets the same answer to the bit whatever else is answered beside it. On the
  /// processor that is always so; on a GPU it is slower.
  bool batch_invariant = false;
  int max_context =
      0;  ///< positions of one sequence (prompt and answer); 0 = the model's own, at most 4096
  int max_sequences = 16;  ///< answers that are generated at once, 1..1024
  int max_queue = 1024;    ///< requests in the engine at once; more are refused
  /// Keys and values. 0 = what is free of a device's own memory; of the host's, room for
  /// max_sequences and for beginnings that are kept, at most a quarter of what is free.
  std::size_t kv_cache_bytes = 0;
  /// Encoded pictures that are kept. Nothing = 256 MiB, or more where a device has memory of its
  /// own.
  std::optional<std::size_t> image_cache_bytes;
  std::filesystem::path image_cache_folder;  ///< keeps encoded pictures on disk; empty = nowhere
  std::size_t image_cache_folder_bytes = std::size_t{4} << 30;
  bool keep_prefixes = true;  ///< false: no KV memory beyond what max_sequences answers need
  /// Told one line of JSON about each request that has ended, on the delivery thread. May be empty.
  std::function<void(std::string_view line)> request_log;
  bool log_content = false;  ///< error messages, which may quote the caller, may be logged
  /// LoRA adapters by the name that requests call them: a safetensors file, or a folder with one.
  std::vector<std::pair<std::string, std::filesystem::path>> adapters;
  /// Adapters that are on the device at once, 0..256; more may be loaded, and take turns. 0 = one
  /// slot for each of `adapters`, so that without any nothing can be loaded later.
  int adapter_slots = 0;
  int max_adapter_rank = 0;   ///< of a slot, 1..512; 0 = the largest of `adapters`, at least 32
  double max_stall_ms = 250;  ///< new pictures and prompts that a step may add while answers run
  Compatibility compatibility;
  PictureLimits picture_limits;
  /// Told about loading, with the fraction done in [0, 1]. May be empty. Called on the creating
  /// thread.
  std::function<void(double fraction)> on_load_progress;
};

}  // namespace fovea
