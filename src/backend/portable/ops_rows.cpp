#include "backend/portable/portable_ops.h"
#include "backend/portable/shapes.h"
#include "base/math.h"
#include "kernels/numbers.h"
#include "kernels/pictures.h"
#include "kernels/rows.h"

namespace fovea::portable {

using kernels::KernelId;

namespace {

constexpr std::uint32_t kRowThreads = 128;
constexpr std::uint32_t kElementThreads = 256;

// Threads of a block that walks `width` elements, a few each.
std::uint32_t threads_for(std::int64_t width, std::uint32_t most) {
  const std::int64_t wanted = round_up(ceil_div(width, std::int64_t{4}), std::int64_t{32});
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(wanted, 32, most));
}

}  // namespace

void PortableOps::patchify(Stream& stream, TensorView crops, TensorView pixel_values,
                           int patch_size, TensorView patches) {
  FOVEA_CHECK(crops.shape.rank() == 4 && crops.shape[1] == crops.shape[2] && crops.shape[3] == 3,
              "crops {}", crops.shape.to_string());
  FOVEA_CHECK(pixel_values.num_elements() == 256, "{} pixel values", pixel_values.num_elements());
  const std::int64_t side = crops.shape[1], p = patch_size, grid = side / p;
  FOVEA_CHECK(
      grid * p == side && patches.num_elements() == crops.shape[0] * grid * grid * 3 * p * p,
      "crops {}, patches {}", crops.shape.to_string(), patches.shape.to_string());
  launch(stream, pick(patches.dtype, KernelId::patchify_f32, KernelId::patchify_bf16),
         {narrow(crops.shape[0] * grid * grid)}, kRowThreads, 0,
         kernels::PatchifyParams{narrow(side), narrow(p), 0, 0},
         {crops.data, pixel_values.data, patches.data});
}

void PortableOps::stitch_and_pool(Stream& stream, TensorView features, int tile_rows, int tile_cols,
                                  int margin, TensorView out) {
  FOVEA_CHECK(features.shape.rank() == 3, "features {}", features.shape.to_string());
  const std::int64_t cells = features.shape[1], width = features.shape[2];
  std::int64_t grid = 1;
  while (grid * grid < cells) ++grid;
  const std::int64_t tiles = std::int64_t{tile_rows} * tile_cols;
  FOVEA_CHECK(grid * grid == cells && margin >= 0 && 2 * margin < grid, "grid of {}, margin {}",
              cells, margin);
  FOVEA_CHECK(tiles >= 1 && features.shape[0] == tiles + (tiles == 1 ? 0 : 1),
              "{} crops for {} x {} tiles", features.shape[0], tile_rows, tile_cols);
  FOVEA_CHECK(out.num_elements() == cells * 2 * width && out.dtype == features.dtype, "out {}",
              out.shape.to_string());
  launch(stream, pick(out.dtype, KernelId::stitch_and_pool_f32, KernelId::stitch_and_pool_bf16),
         {narrow(cells)}, threads_for(width, kRowThreads), 0,
         kernels::StitchParams{narrow(grid), narrow(width), narrow(tile_rows), narrow(tile_cols),
                               narrow(margin), 0, 0, 0},
         {features.data, out.data});
}

void PortableOps::embed(Stream& stream, TensorView table, TensorView ids, TensorView y) {
  const std::int64_t width = table.shape.back();
  FOVEA_CHECK(y.num_elements() == ids.num_elements() * width, "y {} for {} ids of width {}",
              y.shape.to_string(), ids.num_elements(), width);
  const KernelId kernel = table.dtype == DType::kF32
                              ? pick(y.dtype, KernelId::embed_f32_f32, KernelId::embed_f32_bf16)
                              : pick(y.dtype, KernelId::embed_bf16_f32, KernelId::embed_bf16_bf16);
  FOVEA_CHECK(table.dtype == DType::kF32 || table.dtype == DType::kBf16, "table of {}",
              dtype_name(table.dtype));
  launch(stream, kernel, {narrow(ids.num_elements())}, threads_for(width, kRowThreads), 0,
         kernels::RowsParams{narrow(width), narrow(table.shape[0]), 0, 0},
         {table.data, ids.data, y.data});
}

void PortableOps::scatter_rows(Stream& stream, TensorView x, TensorView rows, TensorView y) {
  const std::int64_t width = y.shape.back();
  FOVEA_CHECK(x.num_elements() == rows.num_elements() * width && x.dtype == y.dtype,
              "x {}, {} rows of {}", x.shape.to_string(), rows.num_elements(), width);
  launch(stream, pick(y.dtype, KernelId::scatter_rows_f32, KernelId::scatter_rows_bf16),
         {narrow(rows.num_elements())}, threads_for(width, kRowThreads), 0,
         kernels::RowsParams{narrow(width), narrow(y.num_elements() / width), 0, 0},
         {x.data, rows.data, y.data});
}

void PortableOps::gather_rows(Stream& stream, TensorView x, TensorView rows, TensorView y) {
  const std::int64_t width = x.shape.back();
  FOVEA_CHECK(y.num_elements() == rows.num_elements() * width && x.dtype == y.dtype,
              "y {}, {} rows of {}", y.shape.to_string(), rows.num_elements(), width);
  launch(stream, pick(y.dtype, KernelId::gather_rows_f32, KernelId::gather_rows_bf16),
         {narrow(rows.num_elements())}, threads_for(width, kRowThreads), 0,
         kernels::RowsParams{narrow(width), narrow(x.num_elements() / width), 0, 0},
         {x.data, rows.data, y.data});
}

void PortableOps::layer_norm(Stream& stream, TensorView x, TensorView weight, TensorView bias,
                             float eps, TensorView y) {
  const std::int64_t width = x.shape.back();
  FOVEA_CHECK(weight.num_elements() == width && bias.num_elements() == width &&
                  y.num_elements() == x.num_elements() && x.dtype == y.dtype,
              "x {}, weight {}, bias {}, y {}", x.shape.to_string(), weight.shape.to_string(),
              bias.shape.to_string(), y.shape.to_string());
  const std::uint32_t threads = threads_for(width, kElementThreads);
  launch(stream, pick(y.dtype, KernelId::layer_norm_f32, KernelId::layer_norm_bf16),
         {narrow(width == 0 ? 0 : x.num_elements() / width)}, threads, threads / 32 * sizeof(float),
         kernels::LayerNormParams{narrow(width), eps, 0, 0},
         {x.data, weight.data, bias.data, y.data});
}

void PortableOps::activate(Stream& stream, TensorView x, Activation activation, TensorView y) {
  FOVEA_CHECK(x.num_elements() == y.num_elements() && x.dtype == y.dtype, "x {}, y {}",
              x.shape.to_string(), y.shape.to_string());
  const std::uint32_t count = narrow(x.num_elements());
  launch(stream, pick(y.dtype, KernelId::activate_f32, KernelId::activate_bf16),
         {ceil_div(count, kElementThreads)}, kElementThreads, 0,
         kernels::ActivateParams{count, static_cast<std::uint32_t>(activation), 0, 0},
         {x.data, y.data});
}

void PortableOps::add_rows(Stream& stream, TensorView add, TensorView y) {
  const std::int64_t width = y.shape.back();
  launch(stream, pick(y.dtype, KernelId::add_rows_f32, KernelId::add_rows_bf16),
         {narrow(y.num_elements() / width)}, threads_for(width, kRowThreads), 0,
         kernels::AddRowsParams{narrow(width), narrow(add.shape[0]), 0, 0}, {add.data, y.data});
}

void PortableOps::tau_scale(Stream& stream, TensorView tau, TensorView position_scale,
                            TensorView positions, HeadLayout heads, TensorView qkv) {
  FOVEA_CHECK(heads.num_heads == heads.num_kv_heads, "tau with {} heads over {}", heads.num_heads,
              heads.num_kv_heads);
  const std::int64_t num_heads = heads.num_heads, rows = positions.num_elements();
  FOVEA_CHECK(qkv.num_elements() == rows * 3 * num_heads * heads.head_dim &&
                  tau.num_elements() == rows * 2 * num_heads && tau.dtype == qkv.dtype,
              "qkv {}, tau {}, {} rows", qkv.shape.to_string(), tau.shape.to_string(), rows);
  launch(stream, pick(qkv.dtype, KernelId::tau_scale_f32, KernelId::tau_scale_bf16), {narrow(rows)},
         threads_for(num_heads * heads.head_dim, kRowThreads), 0,
         kernels::TauScaleParams{narrow(num_heads), narrow(heads.head_dim),
                                 narrow(position_scale.shape[0]), 0},
         {tau.data, position_scale.data, positions.data, qkv.data});
}

void PortableOps::fourier_features(Stream& stream, TensorView values, TensorView frequencies,
                                   bool round_to_bf16, TensorView y) {
  const std::int64_t inputs = frequencies.shape[0], features = frequencies.shape.back();
  const std::int64_t rows = values.num_elements() / inputs;
  FOVEA_CHECK(values.num_elements() == rows * inputs && y.num_elements() == rows * 2 * features,
              "values {}, frequencies {}, y {}", values.shape.to_string(),
              frequencies.shape.to_string(), y.shape.to_string());
  launch(stream, pick(y.dtype, KernelId::fourier_features_f32, KernelId::fourier_features_bf16),
         {narrow(rows)}, threads_for(features, kRowThreads), 0,
         kernels::FourierParams{narrow(inputs), narrow(features), round_to_bf16 ? 1u : 0u, 0},
         {values.data, frequencies.data, y.data});
}

void PortableOps::argmax_bins(Stream& stream, TensorView logits, int window, TensorView bins_out,
                              TensorView mass) {
  const std::int64_t bins = logits.shape.back(), rows = bins_out.num_elements();
  FOVEA_CHECK(logits.num_elements() == rows * bins && mass.num_elements() == rows && bins > 0 &&
                  logits.dtype == DType::kF32,
              "logits {}, {} rows", logits.shape.to_string(), rows);
  const std::uint32_t threads = threads_for(bins, kElementThreads);
  launch(stream, KernelId::argmax_bins, {narrow(rows)}, threads, threads / 32 * 8,
         kernels::ArgmaxParams{narrow(bins), narrow(window), 0, 0},
         {logits.data, bins_out.data, mass.data});
}

}  // namespace fovea::portable
