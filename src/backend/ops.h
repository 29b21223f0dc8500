#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "fovea/result.h"

#include "backend/stream.h"
#include "tensor/tensor_view.h"

namespace fovea {

/// A weight matrix [rows, cols] in the layout and element type that its backend computes with.
/// Immutable.
class Matrix {
 public:
  virtual ~Matrix() = default;
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  virtual std::int64_t rows() const = 0;  ///< outputs
  virtual std::int64_t cols() const = 0;  ///< inputs
  virtual std::size_t size_bytes() const = 0;

 protected:
  Matrix() = default;
};

/// A matrix as a checkpoint holds it, in host memory.
struct MatrixSource {
  TensorView weight;       ///< [rows, cols] f32, bf16, f16 or f8e4m3
  TensorView row_scale{};  ///< [rows] f32: element (r, c) counts row_scale[r] times; empty = 1
};

enum class Activation : std::uint8_t {
  kNone,
  kGeluTanh,  ///< 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  kGeluErf,   ///< 0.5 x (1 + erf(x / sqrt 2))
};

/// y = activation(x . weight^T + bias) + add.
struct LinearArgs {
  TensorView x;          ///< [T, cols]
  const Matrix* weight;  ///< [rows, cols]
  TensorView bias{};     ///< [rows] f32, or empty. The weight's: constant for as long as that lives
  Activation activation = Activation::kNone;
  TensorView add{};        ///< [R, rows] f32 or the type of y, or empty: row t adds add[t mod R]; R
                           ///< divides T. May be y itself (a residual).
  TensorView y;            ///< [T, rows]: the type of x, or f32
  TensorView activated{};  ///< as y, or empty: what `activated_by` makes of y as it is stored
  Activation activated_by = Activation::kNone;
};

/// The K and V of one layer for every page of the pool. A page holds `page_size` positions of all
/// KV heads; the order inside a page is the backend's own.
///
/// i8 and f8e4m3 pages hold, for each position and head, the codes x / scale, rounded to the
/// nearest code, ties to even, with scale = max |x| / (the largest code: 127 or 448) over the head;
/// x counts as code * scale. A head that is not finite counts as NaN.
struct KvPages {
  TensorView k;  ///< [num_pages, num_kv_heads, page_size * head_dim] f32, bf16, i8 or f8e4m3
  TensorView v;  ///< the same shape and type
  TensorView k_scale{};  ///< [num_pages, num_kv_heads, page_size] f32 for codes, empty otherwise
  TensorView v_scale{};  ///< the same shape
};
/// Whether pages of this type hold codes of 8 bits, which count by scales beside them.
constexpr bool is_coded(DType pages) { return pages == DType::kI8 || pages == DType::kF8E4M3; }
/// Whether pages can have this type.
constexpr bool can_hold_kv(DType pages) {
  return pages == DType::kF32 || pages == DType::kBf16 || is_coded(pages);
}

/// How the rows of a packed qkv tensor [T, (num_heads + 2 num_kv_heads) * head_dim] are split: q
/// heads, k heads, v heads.
struct HeadLayout {
  int num_heads = 0;
  int num_kv_heads = 0;  ///< query head h reads KV head h * num_kv_heads / num_heads
  int head_dim = 0;
  int page_size = 0;
};

/// Which positions the rows of a step belong to. S sequences, T rows; the rows of one sequence are
/// consecutive.
struct AttentionBatch {
  std::span<const std::int32_t> query_start;  ///< [S + 1] first row of each sequence, then T
  std::span<const std::int32_t> context_len;  ///< [S] positions in the cache, this step's included
  std::span<const std::int32_t>
      prefix_len;  ///< [S] leading positions that all see one another (BOS + image); 0 = causal
  std::span<const std::int32_t> page_table;  ///< [S, max_pages] physical page of each logical page
  std::int64_t max_pages = 0;
};

/// Most alternatives that the sampler lists for one row.
inline constexpr std::int32_t kMaxTopWords = 20;

/// A word that the prompt or the answer holds already. Ids of one row are distinct.
struct SeenWord {
  std::int32_t id;
  std::int32_t answer_count;  ///< occurrences in the answer; 0 = it is in the prompt alone
};

/// A number that is added to a word's logit. Ids of one row are distinct.
struct WordBias {
  std::int32_t id;
  float value;
};

/// Which words the sampler may choose, and how. One row of logits. The logits pass the penalties,
/// then the biases, then the masks; what comes out is "the distribution" of SampleArgs.
struct SamplingRow {
  float temperature = 0;   ///< 0 = the largest logit, lowest id on ties
  float top_p = 1;         ///< keep the most likely words until the mass before one exceeds top_p
  float min_p = 0;         ///< drop words less likely than min_p times the likeliest
  std::int32_t top_k = 0;  ///< keep the k likeliest; 0 = all
  std::uint64_t seed = 0;  ///< random numbers depend on (seed, position) alone
  std::uint64_t position = 0;
  std::int32_t allowed_begin = 0;  ///< range in SampleArgs::mask_ids; empty = every id is allowed
  std::int32_t allowed_count = 0;
  std::int32_t suppressed_begin = 0;  ///< range of ids that are never chosen, even if allowed
  std::int32_t suppressed_count = 0;
  float repetition_penalty = 1;  ///< > 0: divides positive logits of seen words, multiplies others
  float presence_penalty = 0;    ///< taken off words that the answer holds
  float frequency_penalty = 0;   ///< taken off words as often as the answer holds them
  std::int32_t seen_begin = 0;   ///< range in SampleArgs::seen
  std::int32_t seen_count = 0;
  std::int32_t bias_begin = 0;  ///< range in SampleArgs::biases
  std::int32_t bias_count = 0;
  std::int32_t num_top = 0;  ///< likeliest words to list, up to kMaxTopWords
};

struct SampleArgs {
  TensorView logits;                       ///< [S, vocab] f32; left as it is
  std::span<const SamplingRow> rows;       ///< [S] host memory
  std::span<const std::int32_t> mask_ids;  ///< host memory
  TensorView ids;                          ///< [S] i32 chosen ids
  TensorView logprobs;  ///< [S] f32 log softmax (temperature 1) of the distribution at that id

  std::span<const SeenWord> seen{};    ///< host memory
  std::span<const WordBias> biases{};  ///< host memory
  /// [S, kMaxTopWords] i32 and f32: the num_top likeliest words and their log softmax (temperature
  /// 1), likeliest first, lowest id on ties. -1 and -infinity fill what is left, as when fewer
  /// words are possible. Both empty when no row asks. Without a finite largest logit the chosen
  /// word stands alone.
  TensorView top_ids{};
  TensorView top_logprobs{};
};

/// The low-rank pairs that adapters hold for one linear, one pair for each adapter slot: slot s
/// adds b[s]^T (a[s] x) to what the linear makes of x. `experts` stands for one more dimension
/// where the linear is one of several routed experts, and for nothing otherwise.
struct LoraWeights {
  TensorView a;  ///< [slots, (experts,) max_rank, inputs] f32 or bf16
  TensorView b;  ///< [slots, (experts,) max_rank, outputs]: transposed, so that what one rank adds
                 ///< lies side by side; the type of `a`
  std::span<const std::int32_t>
      ranks;  ///< [slots] leading ranks in use, at most max_rank; 0 = the linear stays as it is

  bool empty() const { return a.empty(); }
};

/// Which adapter the rows of a step take. S sequences, rows as in AttentionBatch; host memory.
struct LoraBatch {
  std::span<const std::int32_t> query_start;  ///< [S + 1] first row of each sequence, then T
  std::span<const std::int32_t> slots;        ///< [S] adapter slot of each sequence, -1 = none
};

/// y[t] += b[s]^T (a[s] x[t]) for the rows t of every sequence that has an adapter slot s.
struct LoraArgs {
  TensorView x;  ///< [T, inputs]
  LoraWeights weights;
  LoraBatch batch;
  TensorView y;  ///< [T, outputs]; does not overlap x
};

/// Adapters of routed experts; see Ops::moe_mlp.
struct MoeLora {
  LoraWeights up;    ///< inputs D, outputs 2 inner
  LoraWeights down;  ///< inputs inner, outputs D
  LoraBatch batch;
};

/// Moondream 3: the factors of q and v that follow from a row's own qkv. No weight = there are
/// none.
struct TauArgs {
  const Matrix* weight = nullptr;  ///< [num_heads + num_kv_heads, qkv]
  TensorView position_scale{};     ///< as in Ops::tau_scale
  TensorView input{};              ///< [T, qkv] what an activation made of qkv
  TensorView output{};             ///< [T, num_heads + num_kv_heads] scratch
};

/// A layer's attention, from its packed qkv on. A row that is stored (its slot is not -1) is stored
/// where its position belongs.
struct CachedAttentionArgs {
  TensorView qkv;  ///< [T, qkv]; may be overwritten
  TauArgs tau{};
  TensorView rope;       ///< [max_positions, rotary / 2, 2] f32
  TensorView positions;  ///< [T] i32
  TensorView slots;      ///< [T] i32
  HeadLayout heads;
  KvPages pages;
  AttentionBatch batch;
  TensorView out;  ///< [T, num_heads * head_dim]
};

/// The routed experts of a layer, from the router's logits on.
struct RoutedExpertsArgs {
  TensorView x;        ///< [T, D]
  TensorView router;   ///< [T, num_experts] f32
  TensorView experts;  ///< [T, k] i32 scratch
  TensorView weights;  ///< [T, k] f32 scratch
  std::span<const std::unique_ptr<const Matrix>> up;
  std::span<const std::unique_ptr<const Matrix>> down;
  const MoeLora* lora = nullptr;
  const LinearArgs* beside = nullptr;  ///< a product that adds to the same y; null = none
  TensorView y;                        ///< [T, D]: added to
};

/// What a device can do: one method for each operation, shapes in the comments. T = rows, D = model
/// width. Activations have activation_dtype(), or are f32; biases, norms and tables are f32. Shapes
/// are the caller's duty: a mismatch is a bug and aborts. Outputs may not overlap inputs unless a
/// comment says so.
class Ops {
 public:
  virtual ~Ops() = default;
  Ops(const Ops&) = delete;
  Ops& operator=(const Ops&) = delete;

  /// Element type of hidden states for weights stored as `storage`. Logits are f32.
  virtual DType activation_dtype(DType storage) const = 0;

  /// Packs a weight for linear(). storage: f32, bf16, f8e4m3 (keeps fp8 codes and row scales), or
  /// int4 (tensor/int4.h; kUnsupported for rows that do not fit_int4()).
  /// Called at load time; uses all threads. Errors: kResourceExhausted, kUnsupported.
  virtual Result<std::unique_ptr<const Matrix>> pack(const MatrixSource& source, DType storage) = 0;

  // ---- pictures

  /// crops u8 [n, C, C, 3] -> patches [n * g * g, 3 * p * p], g = C / p. A patch is ordered
  /// channel, row, column; a pixel u becomes pixel_values[u] (f32 [256]).
  virtual void patchify(Stream& stream, TensorView crops, TensorView pixel_values, int patch_size,
                        TensorView patches) = 0;

  /// Full attention inside each picture crop: qkv [n * tokens, 3 * dim] (q, k, v each [heads, dim /
  /// heads]) -> out [n * tokens, dim]; softmax(q k^T / sqrt(head_dim)) v.
  virtual void self_attention(Stream& stream, TensorView qkv, int tokens, int num_heads,
                              TensorView out) = 0;

  /// features [n, g * g, E] of crop 0 (global) and the tiles 1..rows*cols (row-major; for a 1x1
  /// tiling crop 0 itself is the tile and n is 1) -> out [g * g, 2 E]: global features, then the
  /// stitched tiles (inner margins of `margin` patches dropped) average-pooled to g x g by the
  /// adaptive rule: cell i covers [floor(i n / g), ceil((i + 1) n / g)).
  virtual void stitch_and_pool(Stream& stream, TensorView features, int tile_rows, int tile_cols,
                               int margin, TensorView out) = 0;

  // ---- rows

  /// y[t] = table[ids[t]]; a negative id leaves its row as it is. table [vocab, D] f32 or bf16; ids
  /// [T] i32.
  virtual void embed(Stream& stream, TensorView table, TensorView ids, TensorView y) = 0;
  /// y[rows[m]] = x[m]. rows [M] i32.
  virtual void scatter_rows(Stream& stream, TensorView x, TensorView rows, TensorView y) = 0;
  /// y[m] = x[rows[m]]. rows [M] i32.
  virtual void gather_rows(Stream& stream, TensorView x, TensorView rows, TensorView y) = 0;

  // ---- transformer

  /// Per row: (x - mean) / sqrt(var + eps) * weight + bias, biased variance. y may be x.
  virtual void layer_norm(Stream& stream, TensorView x, TensorView weight, TensorView bias,
                          float eps, TensorView y) = 0;

  virtual void linear(Stream& stream, const LinearArgs& args) = 0;
  /// Products of which none reads what another writes: in any order, or at once.
  virtual void linears(Stream& stream, std::span<const LinearArgs> products) {
    for (const LinearArgs& product : products) linear(stream, product);
  }

  /// Adds the low-rank update of each row's adapter; rows without one are not touched. A row's
  /// result is the same to the bit whichever rows and adapters share the call.
  virtual void lora(Stream& stream, const LoraArgs& args) = 0;

  /// y = activation(x), elementwise. y may be x.
  virtual void activate(Stream& stream, TensorView x, Activation activation, TensorView y) = 0;

  /// Moondream 3: scales q and v of each head in place. tau [T, num_heads + num_kv_heads] before
  /// tanh (q heads, then v heads); position_scale [max_positions, num_heads] f32; q[h] *=
  /// tanh(tau[h]) + position_scale[pos, h], v[h] alike with tau[num_heads + h] (num_kv_heads ==
  /// num_heads).
  virtual void tau_scale(Stream& stream, TensorView tau, TensorView position_scale,
                         TensorView positions, HeadLayout heads, TensorView qkv) = 0;

  /// Rotates q (in place) and k by position and writes k and v into the cache. rope [max_positions,
  /// rotary / 2, 2] f32 (cos, sin); dimension i pairs with i + rotary / 2, the rest passes through.
  /// positions [T] i32; slots [T] i32 = page * page_size
  /// + offset, -1 = do not store.
  virtual void rope_and_store_kv(Stream& stream, TensorView rope, TensorView positions,
                                 TensorView slots, HeadLayout heads, TensorView qkv,
                                 KvPages pages) = 0;

  /// Attention over the cache with the prefix-LM mask: position i sees j when j <= i, or both lie
  /// in the prefix. Scores are scaled by 1 / sqrt(head_dim). The rows' own K and V are in the cache
  /// already. out [T, num_heads * head_dim].
  virtual void paged_attention(Stream& stream, TensorView qkv, KvPages pages, HeadLayout heads,
                               const AttentionBatch& batch, TensorView out) = 0;

  /// Copies whole pages, with their scales, of every layer: page to[i] becomes what page from[i] is
  /// (a sequence that writes on in a page that others read does so in a copy). Page ids, host
  /// memory, of equal count; the destinations are distinct and none of them is a source. Pages
  /// outside the pool are a bug.
  virtual void copy_pages(Stream& stream, std::span<const KvPages> layers,
                          std::span<const std::int32_t> from, std::span<const std::int32_t> to) = 0;

  // ---- mixture of experts

  /// The `k` largest of logits [T, num_experts] per row (lowest index on ties) and their softmax:
  /// experts [T, k] i32, weights [T, k] f32.
  virtual void moe_route(Stream& stream, TensorView logits, TensorView experts,
                         TensorView weights) = 0;

  /// y[t] += sum over the routed experts e of weight * down[e] (gelu_erf(h) * (g + 1)), [h | g] =
  /// up[e] x[t]. up[e] [2 inner, D], down[e] [D, inner]. `lora` (null = none) adds the adapters'
  /// low-rank updates to both products, before the gate and before the weight.
  virtual void moe_mlp(Stream& stream, TensorView x, TensorView experts, TensorView weights,
                       std::span<const std::unique_ptr<const Matrix>> up,
                       std::span<const std::unique_ptr<const Matrix>> down, const MoeLora* lora,
                       TensorView y) = 0;

  // ---- several of these in a row, for devices that make fewer launches of them

  /// Products that all add to one y: `add` of each is its y, and all are the same.
  virtual void add_linears(Stream& stream, std::span<const LinearArgs> products);

  /// The factors of tau, rope_and_store_kv and paged_attention.
  virtual void cached_attention(Stream& stream, const CachedAttentionArgs& args);

  /// `beside`, moe_route and moe_mlp.
  virtual void routed_experts(Stream& stream, const RoutedExpertsArgs& args);

  // ---- coordinates and words

  /// values [R, c] f32, frequencies [c, F] f32 -> y [R, 2 F] = cos(f), sin(f) with f = (2 pi value)
  /// . frequencies. With `round_to_bf16` the value, 2 pi value, f, cos and sin are each rounded to
  /// bf16, as the bf16 reference does.
  virtual void fourier_features(Stream& stream, TensorView values, TensorView frequencies,
                                bool round_to_bf16, TensorView y) = 0;

  /// Per row of logits [R, bins]: the largest bin (lowest on ties), and the softmax mass of the
  /// bins within `window` of it. bins_out [R] i32, mass [R] f32.
  virtual void argmax_bins(Stream& stream, TensorView logits, int window, TensorView bins_out,
                           TensorView mass) = 0;

  /// One word per row: penalties, biases, masks, temperature, top-k, then top-p, then min-p, then
  /// the draw.
  virtual void sample(Stream& stream, const SampleArgs& args) = 0;

 protected:
  Ops() = default;
};

}  // namespace fovea
