#pragma once

// Kernels that are CUDA's own: tensor cores and weights streamed from memory. Plain C++; the .cu
// files define the functions. Each enqueues on `stream` and returns what the launch said.

#include <cstdint>

#include "backend/cuda/dependent_launch.h"

namespace fovea::cuda {

/// y = activation(x . weight^T + bias) + add for a few rows: every weight is read once. bf16 x and
/// weight. A row comes out the same to the bit at any number of rows.
struct StreamedLinear {
  const void* x;       ///< [m, k] bf16
  const void* weight;  ///< [n, k] bf16
  const float* scale;  ///< [n] or null
  const float* bias;   ///< [n] or null
  const void* add;     ///< [add_rows, n] of the type of y or f32; null = none
  void* y;             ///< [m, n] bf16 or f32
  int m, n, k;
  int add_rows;
  int activation;  ///< as fovea::Activation
  bool add_is_f32;
  bool y_is_f32;
};
inline constexpr int kMostStreamedRows = 16;
/// Whether the kernel takes these sizes.
constexpr bool can_stream(std::int64_t m, std::int64_t k) {
  return m >= 1 && m <= kMostStreamedRows && k % 32 == 0;
}
cudaError_t streamed_linear(const StreamedLinear& args, KernelStream stream);

/// to[i] = from[i] rounded to bf16.
cudaError_t round_to_bf16(const float* from, void* to, int count, KernelStream stream);

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
};
inline constexpr int kAttentionTileRows = 64;
/// Whether the kernel takes heads of this size.
constexpr bool can_attend(int head_dim) { return head_dim % 8 == 0 && head_dim <= 128; }
cudaError_t self_attention(const TensorAttention& args, KernelStream stream);
cudaError_t prompt_attention(const TensorAttention& args, KernelStream stream);

/// Single rows over their pages: num_tiles of the tables are (sequence, row) pairs.
constexpr bool can_decode(int head_dim) {
  return head_dim == 32 || head_dim == 64 || head_dim == 128 || head_dim == 256;
}
cudaError_t decode_attention(const TensorAttention& args, KernelStream stream);

}  // namespace fovea::cuda
