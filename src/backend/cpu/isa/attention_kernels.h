#pragma once

// Attention of a block of query rows: keys pass by in blocks, scores exist for a few rows and one
// block of keys at a time, and running maxima and sums keep the softmax exact. A block is weighed
// against its own maximum and joins the earlier ones in order, so that it makes no difference to
// the last bit who computed a block, or when (decode_kernels.h computes the same numbers).

#include "gemm_kernels.h"

namespace fovea::cpu::FOVEA_ISA {

// Rows scored together: their scores, one panel of keys and a tile of queries share L1.
constexpr int64_t kScoreRows = 4 * kTileRows;
// Most rows of one call. Every call packs its keys again, which costs as much as scoring about 60
// rows, so a whole picture crop (729) is one call.
constexpr int64_t kAttentionRows = 1024 / kScoreRows * kScoreRows;
constexpr int64_t kPaddedHeadDim = kMaxHeadDim + kPanelCols;  // head_dim in whole panels

// Scratch: packed queries, keys, values, scores, outputs, running maximum and sum.
constexpr int64_t kQueryFloats = kAttentionRows * kMaxHeadDim;
constexpr int64_t kKeyFloats = (kKeyBlock + kPanelCols) * kMaxHeadDim;
constexpr int64_t kValueFloats = kKeyBlock * kPaddedHeadDim;
constexpr int64_t kScoreFloats = kScoreRows * kKeyBlock;
constexpr int64_t kOutFloats = kAttentionRows * kPaddedHeadDim;
constexpr int64_t kAttentionScratchFloats =
    kQueryFloats + kKeyFloats + kValueFloats + kScoreFloats + kOutFloats + 2 * kAttentionRows;

static_assert(kKeyBlock % kPanelCols == 0, "a block of keys is whole panels");

constexpr float kMinusInfinity = -__builtin_inff();
constexpr float kLog2E = 1.44269504f;

// Keys that a row at `position` sees.
static inline int64_t visible_keys(const AttentionArgs& a, int64_t position) {
  const int64_t causal = position + 1;
  const int64_t seen = position < a.prefix && a.prefix > causal ? a.prefix : causal;
  return seen < a.num_keys ? seen : a.num_keys;
}

// Queries, scaled -> [tile][head_dim][kTileRows]; scores come out in units of log2.
static void pack_queries(const AttentionArgs& a, float* packed) {
  const float scale = kLog2E / __builtin_sqrtf(static_cast<float>(a.head_dim));
  for (int64_t row = 0; row < a.num_rows; row += kTileRows) {
    for (int64_t r = 0; r < kTileRows; ++r) {
      const bool given = row + r < a.num_rows;
      const float* q = given ? a.q + (row + r) * a.q_stride : nullptr;
      for (int64_t d = 0; d < a.head_dim; ++d) {
        packed[d * kTileRows + r] = given ? q[d] * scale : 0.0f;
      }
    }
    packed += a.head_dim * kTileRows;
  }
}

static inline float widened(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  __builtin_memcpy(&value, &word, sizeof(value));
  return value;
}

// Whether pages of this type have scales.
static inline bool is_coded(PageType type) {
  return type == PageType::kI8 || type == PageType::kF8;
}

// Where the scale of one position lies, from its head's in page 0 on.
static inline int64_t scale_at(const KeyValueArgs& kv, int64_t position) {
  return kv.page_table[position / kv.page_size] * kv.scale_stride + position % kv.page_size;
}

// Keys [begin, begin + count) -> [panel][head_dim][kPanelCols], zeros past the last.
static void pack_keys(const KeyValueArgs& kv, int64_t head_dim, int64_t begin, int64_t count,
                      float* packed) {
  const int64_t padded = (count + kPanelCols - 1) / kPanelCols * kPanelCols;
  for (int64_t i = 0; i < padded; ++i) {
    float* column = packed + (i / kPanelCols) * head_dim * kPanelCols + i % kPanelCols;
    if (i >= count) {
      for (int64_t d = 0; d < head_dim; ++d) column[d * kPanelCols] = 0;
    } else if (kv.page_table == nullptr) {
      const float* key = kv.k + (begin + i) * kv.row_stride;
      for (int64_t d = 0; d < head_dim; ++d) column[d * kPanelCols] = key[d];
    } else {
      const int64_t page = kv.page_table[(begin + i) / kv.page_size];
      const int64_t start = page * kv.page_stride + (begin + i) % kv.page_size;
      const float scale = is_coded(kv.type) ? kv.k_scales[scale_at(kv, begin + i)] : 1.0f;
      for (int64_t d = 0; d < head_dim; ++d) {
        const int64_t at = start + d * kv.page_size;
        float element = 0;
        switch (kv.type) {
          case PageType::kF32:
            element = static_cast<const float*>(kv.k_pages)[at];
            break;
          case PageType::kBf16:
            element = widened(static_cast<const uint16_t*>(kv.k_pages)[at]);
            break;
          case PageType::kI8:
            element = static_cast<float>(static_cast<const int8_t*>(kv.k_pages)[at]) * scale;
            break;
          case PageType::kF8:
            element = widened_f8(static_cast<const uint8_t*>(kv.k_pages)[at]) * scale;
            break;
        }
        column[d * kPanelCols] = element;
      }
    }
  }
}

// Values [begin, begin + count) -> [panel of head_dim][count][kPanelCols], zeros past head_dim.
static void pack_values(const KeyValueArgs& kv, int64_t head_dim, int64_t begin, int64_t count,
                        float* packed) {
  for (int64_t i = 0; i < count; ++i) {
    const float* value = kv.v + (begin + i) * kv.row_stride;
    const uint16_t* value_bf16 = nullptr;
    const int8_t* value_i8 = nullptr;
    const uint8_t* value_f8 = nullptr;
    float scale = 1;
    if (kv.page_table != nullptr) {
      const int64_t page = kv.page_table[(begin + i) / kv.page_size];
      const int64_t start = page * kv.page_stride + (begin + i) % kv.page_size * head_dim;
      if (kv.type == PageType::kF32) value = static_cast<const float*>(kv.v_pages) + start;
      if (kv.type == PageType::kBf16) value_bf16 = static_cast<const uint16_t*>(kv.v_pages) + start;
      if (kv.type == PageType::kI8) value_i8 = static_cast<const int8_t*>(kv.v_pages) + start;
      if (kv.type == PageType::kF8) value_f8 = static_cast<const uint8_t*>(kv.v_pages) + start;
      if (is_coded(kv.type)) scale = kv.v_scales[scale_at(kv, begin + i)];
    }
    for (int64_t d = 0; d < head_dim; d += kPanelCols) {
      float* out = packed + (d * count) + i * kPanelCols;
      for (int v = 0; v < kVectors; ++v) {
        const int64_t at = d + v * kLanes;
        const int64_t left = head_dim - at < 0 ? 0 : head_dim - at;
        const int64_t lanes = left < kLanes ? left : kLanes;
        Floats elements = {};
        if (lanes > 0) {
          elements = value_bf16 != nullptr ? load_bf16_some(value_bf16 + at, lanes)
                     : value_i8 != nullptr ? load_i8_some(value_i8 + at, lanes) * splat(scale)
                     : value_f8 != nullptr ? load_f8_some(value_f8 + at, lanes) * splat(scale)
                                           : load_some(value + at, lanes);
        }
        store(out + v * kLanes, elements);
      }
    }
  }
}

// What a row knows of some keys: their largest score and sum(exp2(score - max)).
struct Softmax {
  float max;
  float sum;
};

// Scores of one row against `seen` keys of a block become weights exp2(score - their maximum),
// zeros from `seen` up to `count`. Reads and writes whole vectors. This function and the two below
// are never inlined: which products and sums are fused may not depend on the kernel that calls
// them.
__attribute__((noinline)) static Softmax soften_row(float* scores, int64_t seen, int64_t count) {
  Floats best = splat(kMinusInfinity);
  int64_t i = 0;
  for (; i + kLanes <= seen; i += kLanes) best = max(load(scores + i), best);
  float largest = max_lanes(best);
  for (; i < seen; ++i) largest = scores[i] > largest ? scores[i] : largest;
  Floats total = {};
  for (i = 0; i + kLanes <= seen; i += kLanes) {
    const Floats weight = exp2_of(load(scores + i) - splat(largest));
    store(scores + i, weight);
    total += weight;
  }
  if (i < seen) {
    Floats tail = exp2_of(load(scores + i) - splat(largest));
    for (int64_t lane = seen - i; lane < kLanes; ++lane) tail[lane] = 0;
    store(scores + i, tail);
    total += tail;
    i += kLanes;
  }
  for (; i < count; i += kLanes) store(scores + i, Floats{});
  return {largest, sum_lanes(total)};
}

// How earlier sums and those of a block change to share one maximum; one of the factors is 1.
struct JoinFactors {
  float earlier;
  float block;
};

// Takes a block that is not the first into what a row knows so far.
__attribute__((noinline)) static JoinFactors join(Softmax block, Softmax* row) {
  JoinFactors factors = {1, 1};
  if (block.max > row->max) {
    factors.earlier = exp2_of(splat(row->max - block.max))[0];
    row->max = block.max;
  } else {
    factors.block = exp2_of(splat(block.max - row->max))[0];
  }
  row->sum = row->sum * factors.earlier + block.sum * factors.block;
  return factors;
}

// sums[0, count) *= factor, in whole vectors.
__attribute__((noinline)) static void shrink_sums(float factor, int64_t count, float* sums) {
  if (factor == 1.0f) return;
  for (int64_t d = 0; d < count; d += kLanes) store(sums + d, load(sums + d) * splat(factor));
}

// One block of keys against the rows [row_begin, row_begin + kScoreRows) of a call.
// NOLINTNEXTLINE(readability-function-size): the kernels' common arguments
static void attend_block(const AttentionArgs& a, int64_t row_begin, int64_t key_begin,
                         int64_t count, const float* queries, const float* keys,
                         const float* values, float* scores, float* out, Softmax* running) {
  float factors[kScoreRows];
  const int64_t rows = a.num_rows - row_begin < kScoreRows ? a.num_rows - row_begin : kScoreRows;
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t panels = (count + kPanelCols - 1) / kPanelCols;
  const int64_t dim_panels = (a.head_dim + kPanelCols - 1) / kPanelCols;
  const int64_t out_cols = dim_panels * kPanelCols;
  for (int64_t panel = 0; panel < panels; ++panel) {
    for (int64_t tile = 0; tile < tiles; ++tile) {
      packed_tile(a.head_dim, queries + (row_begin + tile * kTileRows) * a.head_dim,
                  keys + panel * a.head_dim * kPanelCols,
                  scores + tile * kTileRows * kKeyBlock + panel * kPanelCols, kKeyBlock, false);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = row_begin + r;
    int64_t seen = visible_keys(a, a.first_position + row) - key_begin;
    seen = seen < 0 ? 0 : (seen > count ? count : seen);
    const Softmax block = soften_row(scores + r * kKeyBlock, seen, count);
    factors[r] = 1;
    if (key_begin == 0) {
      running[row] = block;
    } else if (seen > 0) {
      const JoinFactors change = join(block, running + row);
      shrink_sums(change.earlier, out_cols, out + row * out_cols);
      factors[r] = change.block;
    }
  }
  for (int64_t r = rows; r < tiles * kTileRows; ++r) factors[r] = 1;  // fill up the last tile
  for (int64_t panel = 0; panel < dim_panels; ++panel) {
    for (int64_t tile = 0; tile < tiles; ++tile) {
      strided_tile(count, scores + tile * kTileRows * kKeyBlock, kKeyBlock,
                   values + panel * count * kPanelCols,
                   out + (row_begin + tile * kTileRows) * out_cols + panel * kPanelCols, out_cols,
                   key_begin != 0, factors + tile * kTileRows);
    }
  }
}

// The output of one row: its sums over the sum of its weights.
static inline void finish_attention(const float* sums, float weight, int64_t head_dim, float* out) {
  const Floats inverse = splat(1.0f / weight);
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    const int64_t lanes = head_dim - d < kLanes ? head_dim - d : kLanes;
    store_some(out + d, load(sums + d) * inverse, lanes);
  }
}

static void attend(const AttentionArgs* args, float* scratch) {
  const AttentionArgs& a = *args;
  float* queries = scratch;
  float* keys = queries + kQueryFloats;
  float* values = keys + kKeyFloats;
  float* scores = values + kValueFloats;
  float* out = scores + kScoreFloats;
  Softmax* running = reinterpret_cast<Softmax*>(out + kOutFloats);
  const int64_t out_cols = (a.head_dim + kPanelCols - 1) / kPanelCols * kPanelCols;

  pack_queries(a, queries);
  const int64_t last_seen = visible_keys(a, a.first_position + a.num_rows - 1);
  for (int64_t key = 0; key < last_seen; key += kKeyBlock) {
    const int64_t count = last_seen - key < kKeyBlock ? last_seen - key : kKeyBlock;
    pack_keys(a.kv, a.head_dim, key, count, keys);
    pack_values(a.kv, a.head_dim, key, count, values);
    for (int64_t row = 0; row < a.num_rows; row += kScoreRows) {
      const int64_t last_row =
          row + kScoreRows < a.num_rows ? row + kScoreRows - 1 : a.num_rows - 1;
      // What a row sees grows with its position: the whole group is past its keys.
      if (visible_keys(a, a.first_position + last_row) <= key) continue;
      attend_block(a, row, key, count, queries, keys, values, scores, out, running);
    }
  }
  for (int64_t r = 0; r < a.num_rows; ++r) {
    finish_attention(out + r * out_cols, running[r].sum, a.head_dim, a.out + r * a.out_stride);
  }
}

}  // namespace fovea::cpu::FOVEA_ISA
