#pragma once

// Kernels that are CUDA's own: tensor cores and weights streamed from memory. Plain C++; the .cu
// files define the functions. Each enqueues on `stream` and returns what the launch said.

#include <cstddef>
#include <cstdint>

#include "backend/cuda/dependent_launch.h"

namespace fovea::cuda {

/// A few words between device memory and pinned host memory, by a kernel: unlike a copy by the
/// device's copy engines it lies among kernels without a gap on either side. One of host memory is
/// read before the kernels in front of this one have ended.
struct SmallCopy {
  const void* from;  ///< aligned to 4 bytes, like `to`
  void* to;
  int words;  ///< of 4 bytes
  bool is_from_host;
};
inline constexpr std::size_t kMostSmallCopyBytes = std::size_t{32} << 10;
cudaError_t small_copy(const SmallCopy& args, KernelStream stream);

/// LayerNorm of bf16 rows, each in one read. y may be x.
struct RowNorm {
  const void* x;  ///< [rows, width] bf16, rows aligned to 16 bytes
  const float* weight;
  const float* bias;
  void* y;
  int rows, width;
  float eps;
};
inline constexpr int kMostNormWidth = 8192;
/// Whether the kernel takes rows of this width.
constexpr bool can_norm(std::int64_t width) { return width % 8 == 0 && width <= kMostNormWidth; }
cudaError_t row_norm(const RowNorm& args, KernelStream stream);

/// What a weight is stored as.
enum class WeightType : int {
  kBf16,    ///< row by row
  kFloat8,  ///< row by row, e4m3
  kInt4,    ///< kernels/int4_tile.h
};

/// y = activation(x . weight^T * scale + bias) + add for up to kMostStreamedRows rows: every weight
/// is read once.
struct StreamedLinear {
  const void* x;       ///< [m, k] bf16
  const void* weight;  ///< [n, k]
  const float* scale;  ///< [n] or null
  const float* bias;   ///< [n] or null
  const void* add;     ///< [add_rows, n] of the type of y or f32; null = none
  void* y;             ///< [m, n] bf16 or f32
  void* activated;     ///< as y, or null: what `activated_by` makes of y as it is stored
  int m, n, k;
  int add_rows;
  int activation, activated_by;  ///< as fovea::Activation
  WeightType weight_type;
  bool add_is_f32;
  bool y_is_f32;
};
inline constexpr int kMostStreamedRows = 16;
/// Whether the kernel takes this depth.
constexpr bool can_stream(std::int64_t k) { return k % 32 == 0; }
/// Up to so many rows, streaming the weight for every kMostStreamedRows of them takes no more time
/// than a product of all at once, give or take a twentieth.
constexpr int most_streamed_rows(WeightType type) {
  return type == WeightType::kBf16 ? kMostStreamedRows : type == WeightType::kFloat8 ? 32 : 64;
}
/// The same of two products that are added up.
constexpr int most_summed_rows(WeightType type) {
  return type == WeightType::kBf16 ? kMostStreamedRows : 64;
}
/// Whether streamed_products() takes weights of these types at once.
constexpr bool can_stream_together(WeightType a, WeightType b) {
  return a == b || a == WeightType::kBf16 || b == WeightType::kBf16;
}
/// Whether the parts of a sum may have this depth.
constexpr bool can_stream_parts(WeightType type, std::int64_t depth) {
  return depth % (type == WeightType::kInt4 ? 64 : 32) == 0;
}
/// One or two products of the same rows at once.
struct StreamedProducts {
  StreamedLinear first;
  StreamedLinear second;  ///< n = 0: there is none; all else as of the first
  int first_blocks = 0;   ///< set by streamed_products()
};
cudaError_t streamed_products(const StreamedProducts& args, KernelStream stream);

/// One product of a sum.
struct StreamedTerm {
  const void* x;       ///< [m, k] bf16
  const void* weight;  ///< [n, k]
  const float* scale;  ///< [n] or null
  const float* bias;   ///< [n] or null
  int k;               ///< a multiple of 32
};
/// y += first + second for up to kMostStreamedRows rows; can_stream_parts() of the common
/// divisor of their depths, and has_room_for_sum(). first_is_early: first.x was written before the
/// kernel in front of this one, which touches neither of them and waits before it lets this one
/// start.
struct StreamedSum {
  StreamedTerm first, second;
  void* y;  ///< [m, n] bf16
  int m, n;
  WeightType weight_type;
  bool first_is_early;
};
cudaError_t streamed_sum(const StreamedSum& args, KernelStream stream);
/// Whether a block of the current device has the shared memory for it. has_clusters: as
/// KernelStream::starts_early.
bool has_room_for_sum(WeightType type, int rows, bool has_clusters);

/// One of the two products of routed experts, for all experts at once. Places are (row, choice)
/// pairs sorted by expert, as kernels/moe.h sorts them.
///   up:   y[place] = gelu_erf(h) * (g + 1), [h | g] = weights[expert] . x[row_of_place[place]] +
///         added[place]; bf16
///   down: y[place] = weights[expert] . x[place], f32
inline constexpr int kMostNativeExperts = 128;
inline constexpr int kMostNativeChoices = 32;  ///< of a row
inline constexpr int kMostRoutedExperts = 64;  ///< of RoutedRows
inline constexpr int kMostRoutedChoices = 8;
struct ExpertProduct {
  const void* x;                     ///< rows of k, bf16; e4m3 where x_scales are given
  const float* x_scales;             ///< one for each row of x, of HopperExperts alone; or null
  const std::int32_t* offsets;       ///< [num_experts + 1]: each expert's first place
  const std::int32_t* row_of_place;  ///< [num_pairs]
  const float* added;                ///< [num_pairs, n], of up: what adapters add; or null, as of
                                     ///< HopperExperts
  void* y;
  int num_rows, num_pairs, num_experts;
  int n, k;  ///< of each weight; of up, n is 2 inner
  WeightType weight_type;
  const void* weights[kMostNativeExperts];  ///< [n, k]
  const float* scales[kMostNativeExperts];  ///< [n] or null
};
/// Of up to so many rows: every weight that is needed is read once.
inline constexpr int kMostStreamedExpertRows = 64;
cudaError_t streamed_experts(const ExpertProduct& args, bool up, KernelStream stream);
/// In tiles of 128 places.
cudaError_t tiled_experts(const ExpertProduct& args, bool up, KernelStream stream);

/// Routed experts of a few rows, which choose them in both of the kernels, as kernels::moe_route
/// does. Places are (used expert, row) pairs.
///   up:   gated[place] = what the row counts of the expert * gelu_erf(h) * (g + 1),
///         [h | g] = weights[expert] . x[row], for the rows that chose it
///   down: y[row] += the sum over its experts of weights[expert] . gated[place], and `beside`
struct RoutedRows {
  const void* x;        ///< [rows, dim] bf16
  const float* router;  ///< [rows, num_experts] logits
  void* gated;          ///< [num_experts at most, rows, inner] bf16
  void* y;              ///< [rows, dim] bf16
  int rows, num_experts, choices, dim, inner;
  WeightType weight_type;
  /// Of up: x and router were written before the kernel in front of this one, which waits before it
  /// lets this one start.
  bool is_early;
  /// Of down; no weight = none. k: a multiple of `inner`, of which can_stream_parts().
  StreamedTerm beside;
  const void* weights[kMostRoutedExperts];  ///< of up [2 inner, dim], of down [dim, inner]
  const float* scales[kMostRoutedExperts];  ///< of each row of a weight, or null
};
inline constexpr int kMostRoutedRows = 16;
cudaError_t routed_rows(const RoutedRows& args, bool up, KernelStream stream);

/// y[row] += the sum over the row's choices of weight * results[place].
struct CombinedExperts {
  const void* results;         ///< [pairs, width] bf16
  const std::int32_t* places;  ///< [rows, choices]
  const float* weights;        ///< the same
  void* y;                     ///< [rows, width] bf16
  int rows, choices, width;    ///< a multiple of 8
};
cudaError_t combine_experts(const CombinedExperts& args, KernelStream stream);

/// to[i] = from[i] rounded to bf16.
cudaError_t round_to_bf16(const float* from, void* to, int count, KernelStream stream);

/// Rows of bf16 as e4m3, each with a scale of its own: its largest magnitude becomes 448.
struct QuantisedRows {
  const void* x;  ///< [rows, width] bf16, rows aligned to 16 bytes
  void* y;        ///< [rows, width] e4m3
  float* scale;   ///< [rows]: x = y * scale, but for rounding
  int rows, width;
};
inline constexpr int kMostQuantisedWidth = 16384;
/// Whether the kernel takes rows of this width.
constexpr bool can_quantise(std::int64_t width) {
  return width % 8 == 0 && width <= kMostQuantisedWidth;
}
cudaError_t quantise_rows(const QuantisedRows& args, KernelStream stream);
/// y[r] = x[r] * scale[r] as bf16; x [rows, width] e4m3, scale [rows] or null. width: a multiple of
/// 8; up to 65,535 rows.
cudaError_t widen_rows(const void* x, const float* scale, void* y, int rows, int width,
                       KernelStream stream);
/// The same of weights in 4 bits: x in tiles, step [rows]; up to 524,280 rows.
cudaError_t widen_int4(const void* x, const float* step, void* y, int rows, int width,
                       KernelStream stream);

/// Where attention finds its rows and keys; see kernels/attention.h for the tables.
struct TensorAttention {
  const void* qkv;  ///< packed rows, bf16
  void* out;        ///< bf16
  int num_heads, num_kv_heads, head_dim;
  // Of self-attention inside crops:
  int tokens = 0;
  int num_crops = 0;
  // Of paged attention:
  const void* k_pages = nullptr;  ///< bf16
  const void* v_pages = nullptr;
  const std::int32_t* tables = nullptr;
  int context_at = 0, prefix_at = 0, pages_at = 0, tiles_at = 0;
  int page_size = 0, max_pages = 0, num_tiles = 0;
  int num_rows = 0, num_pages = 0;  ///< of qkv; of the cache
};
inline constexpr int kAttentionTileRows = 64;
/// Whether the kernel takes heads of this size.
constexpr bool can_attend(int head_dim) { return head_dim % 8 == 0 && head_dim <= 128; }
cudaError_t self_attention(const TensorAttention& args, KernelStream stream);
cudaError_t prompt_attention(const TensorAttention& args, KernelStream stream);

/// Rotation of rows' q, in place, and of their k, which go with v to their pages and nowhere else;
/// numbers as of kernels::rope_and_store_kv.
struct RotatedRows {
  void* qkv;      ///< [rows, (num_heads + 2 num_kv_heads) * head_dim] bf16
  void* k_pages;  ///< bf16
  void* v_pages;
  const float* rope;              ///< [max_positions, rotary_pairs, 2]
  const std::int32_t* positions;  ///< [rows]
  const std::int32_t* slots;      ///< [rows]; -1: not stored
  int rows, num_heads, num_kv_heads, head_dim, page_size;
  int max_positions, rotary_pairs, num_slots;
};
/// Whether the kernel takes heads like these.
constexpr bool can_rotate(int head_dim, std::int64_t rotary_pairs) {
  return head_dim % 8 == 0 && rotary_pairs % 8 == 0;
}
cudaError_t rotate_rows(const RotatedRows& args, KernelStream stream);

/// Element type of pages of keys and values: bf16, or codes of 8 bits that count in steps, one for
/// each row (position of a head).
enum class PageType { kBf16, kI8, kF8 };

/// The pages of some sequences as bf16 in pages of their own, of the same layout. Positions behind
/// the end of a context become zeros.
struct WidenedPages {
  const void* k_pages;  ///< codes
  const void* v_pages;
  const float* k_steps;
  const float* v_steps;
  PageType type;
  void* k;  ///< bf16
  void* v;
  int num_kv_heads, page_size, head_dim;  ///< heads of a multiple of 16
  int max_pages;
  const std::int32_t* tables;  ///< as of TensorAttention
  int context_at, pages_at;
  int widened_at;  ///< where `tables` have [sequences, max_pages] pages in k and v; -1 = none
  int first_sequence, num_sequences;
};
cudaError_t widen_pages(const WidenedPages& args, KernelStream stream);

constexpr bool can_decode(int head_dim) {
  return head_dim == 32 || head_dim == 64 || head_dim == 128 || head_dim == 256;
}
/// Attention of single rows over their pages. num_heads is a multiple of num_kv_heads; heads as
/// can_decode() says.
struct DecodedRows {
  const void* qkv;  ///< packed rows, bf16; left as they are
  void* out;        ///< [rows, num_heads * head_dim] bf16
  int num_heads, num_kv_heads, head_dim;
  void* k_pages;
  void* v_pages;
  PageType page_type;
  float* k_steps;  ///< of codes, by row
  float* v_steps;
  int page_size, max_pages;
  const std::int32_t* tables;  ///< as of TensorAttention, their (sequence, row) pairs included
  int context_at, prefix_at, pages_at, tiles_at, num_tiles;
};
cudaError_t decode_attention(const DecodedRows& args, KernelStream stream);

/// The same of sequences of one row each, from the projection on: q and v scaled by tau, q and k
/// rotated, k and v stored.
struct NewRows {
  DecodedRows rows;
  const float* rope;              ///< [max_positions, rotary_pairs, 2]
  const std::int32_t* positions;  ///< [rows]
  const std::int32_t* slots;      ///< [rows]; -1: the row's position is in its page already
  int max_positions, rotary_pairs, num_slots;
  bool is_early;  ///< the kernel in front writes no pages, and waits before it lets this one start
  // Of tau; no weight = none.
  const void* tau_weight = nullptr;       ///< [2 num_heads, qkv] bf16 or f8e4m3
  const float* tau_scale = nullptr;       ///< [2 num_heads] or null
  const void* tau_input = nullptr;        ///< [rows, qkv] bf16, of the newest kernel like the rows
  const float* position_scale = nullptr;  ///< [tau_positions, num_heads]
  int tau_positions = 0;
  bool tau_is_f8 = false;
};
cudaError_t decode_new_rows(const NewRows& args, KernelStream stream);

}  // namespace fovea::cuda
