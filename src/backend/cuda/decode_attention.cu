#include "backend/cuda/block_cluster.h"
#include "backend/cuda/new_row.h"
#include "kernels/attention.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

// Small enough that blocks of the next kernel, which is a product, find registers beside one.
constexpr int kWarps = kDecodeWarps, kBlocksOfMultiprocessor = 3;

// A softmax over some of the keys, and kDims dimensions of their values weighted by it.
template <int kDims>
struct Softmax {
  float largest = -1e30f, total = 0;
  float sums[kDims] = {};

  // The largest score becomes `joined`, which is at least as large.
  __device__ __forceinline__ void rescale(float joined) {
    const float factor = exp2f(largest - joined);
    largest = joined;
    total *= factor;
#pragma unroll
    for (int i = 0; i < kDims; ++i) sums[i] *= factor;
  }
  // The elements of v count in steps.
  __device__ __forceinline__ void add(float score, const float (&v)[kDims], float step) {
    const float weight = exp2f(score - largest);
    total += weight;
    const float weight_of_code = weight * step;
#pragma unroll
    for (int i = 0; i < kDims; ++i) sums[i] += weight_of_code * v[i];
  }
  // With that of the lane `mask` away.
  __device__ __forceinline__ void join(int mask) {
    rescale(fmaxf(largest, __shfl_xor_sync(~0u, largest, mask)));
    total += __shfl_xor_sync(~0u, total, mask);
#pragma unroll
    for (int i = 0; i < kDims; ++i) sums[i] += __shfl_xor_sync(~0u, sums[i], mask);
  }
};

// The rows of pages that hold a sequence's keys of one head.
struct KeyRows {
  const int* page_table;
  unsigned page_size, inverse;  // 2^32 / page_size, a little more: pages are small
  int head_row, page_rows;

  __device__ __forceinline__ KeyRows(const DecodedRows& p, int sequence, int kv_head)
      : page_table(p.tables + p.pages_at + static_cast<std::size_t>(sequence) * p.max_pages),
        page_size(p.page_size),
        inverse(0xffffffffu / page_size + 1),
        head_row(kv_head * p.page_size),
        page_rows(p.num_kv_heads * p.page_size) {}

  __device__ __forceinline__ int row(int position) const {
    const unsigned page = __umulhi(position, inverse);
    return page_table[page] * page_rows + head_row + position - static_cast<int>(page * page_size);
  }
};

// What a block's warps have of the softmax, and, of the first of a row's blocks, what each block
// has.
template <int kDim, int kSplit>
struct Parts {
  float largest[kWarps], totals[kWarps];
  float sums[kWarps][kDim];
  float block_largest[kSplit], block_totals[kSplit];
  float block_sums[kSplit][kDim];
};

// The warps' parts as one: of a row that has one block to `out`, else to the first of its blocks.
template <int kDim, int kSplit>
__device__ __forceinline__ void join_warps(Parts<kDim, kSplit>& parts, int rank,
                                           __nv_bfloat16* out) {
  for (int d = threadIdx.x; d < kDim; d += kWarps * 32) {
    float joined = -1e30f;
    for (int w = 0; w < kWarps; ++w) joined = fmaxf(joined, parts.largest[w]);
    float sum = 0, mass = 0;
    for (int w = 0; w < kWarps; ++w) {
      const float factor = exp2f(parts.largest[w] - joined);
      mass += parts.totals[w] * factor;
      sum += parts.sums[w][d] * factor;
    }
    if constexpr (kSplit == 1) {
      out[d] = __float2bfloat16_rn(sum / mass);
    } else {
      store_to_block(&parts.block_sums[rank][d], sum, 0);
      if (d == 0) {
        store_to_block(&parts.block_totals[rank], mass, 0);
        store_to_block(&parts.block_largest[rank], joined, 0);
      }
    }
  }
}

// The blocks' parts as one, by the first of them.
template <int kDim, int kSplit>
__device__ __forceinline__ void join_blocks(const Parts<kDim, kSplit>& parts, __nv_bfloat16* out) {
  for (int d = threadIdx.x; d < kDim; d += kWarps * 32) {
    float joined = -1e30f;
#pragma unroll
    for (int b = 0; b < kSplit; ++b) joined = fmaxf(joined, parts.block_largest[b]);
    float sum = 0, mass = 0;
#pragma unroll
    for (int b = 0; b < kSplit; ++b) {
      const float factor = exp2f(parts.block_largest[b] - joined);
      mass += parts.block_totals[b] * factor;
      sum += parts.block_sums[b][d] * factor;
    }
    out[d] = __float2bfloat16_rn(sum / mass);
  }
}

// One row of one head, by kSplit blocks of a cluster. Each takes a stretch of the keys; within a
// block they are shared out over the warps, and within a warp over groups of lanes that hold 16
// bytes each. Every group keeps a softmax of its own; they are joined at the end. The first keys
// are asked for while the kernel in front still runs, or while the row's own are prepared.
template <class Pages, int kDim, int kSplit, bool kNew>
__global__ void __launch_bounds__(kWarps * 32, kBlocksOfMultiprocessor) decode(NewRows all) {
  constexpr int kOfLoad = Pages::kOfLoad, kTogether = Pages::kTogether;
  constexpr int kLanes = kDim / kOfLoad;  // of a key
  constexpr int kGroups = 32 / kLanes;    // keys of a warp at a time
  constexpr int kStep = kWarps * kGroups;
  const DecodedRows& p = all.rows;
  __shared__ Parts<kDim, kSplit> parts;
  __shared__ OwnHead<kDim> own;
  __shared__ float scratch[2][kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int group = lane / kLanes, part = lane % kLanes;
  const int head = blockIdx.y / kSplit, rank = blockIdx.y % kSplit;
  const int kv_head = head * p.num_kv_heads / p.num_heads;

  if constexpr (kSplit > 1) cluster_arrive();  // before others store to this block it has begun
  if (!kNew || !all.is_early) kernels::wait_for_earlier_kernels();
  const int sequence = kNew ? blockIdx.x : p.tables[p.tiles_at + 2 * blockIdx.x];
  const int row_of_sequence = kNew ? 0 : p.tables[p.tiles_at + 2 * blockIdx.x + 1];
  const int row = p.tables[sequence] + row_of_sequence;
  const KeyRows keys(p, sequence, kv_head);
  const int slot = kNew ? all.slots[sequence] : -1;
  const bool is_new = slot >= 0 && slot < all.num_slots;
  kernels::Visibility visibility;
  visibility.num_keys = p.tables[p.context_at + sequence];
  visibility.first_position = visibility.num_keys - (p.tables[sequence + 1] - p.tables[sequence]);
  visibility.prefix = p.tables[p.prefix_at + sequence];
  const int in_pages =
      static_cast<int>(visible_keys(visibility, row_of_sequence)) - (is_new ? 1 : 0);
  const int stretch = ((in_pages + kSplit - 1) / kSplit + kStep - 1) / kStep * kStep;
  const int end = min((rank + 1) * stretch, in_pages);
  const auto* k_pages = static_cast<const uint4*>(p.k_pages);
  const auto* v_pages = static_cast<const uint4*>(p.v_pages);
  uint4 k_words[kTogether], v_words[kTogether];
  float k_steps[kTogether], v_steps[kTogether];
  int rows[kTogether];  // of the keys that were asked for last; -1 = none
  const auto load_keys = [&](int first) {
#pragma unroll
    for (int s = 0; s < kTogether; ++s) {
      const int position = first + group + s * kStep;
      rows[s] = position < end ? keys.row(position) : -1;
      k_words[s] = {0, 0, 0, 0};
      k_steps[s] = 1;
      if (rows[s] < 0) continue;
      k_words[s] = __ldcg(k_pages + static_cast<std::size_t>(rows[s]) * kLanes + part);
      if constexpr (Pages::kIsCoded) k_steps[s] = __ldcg(p.k_steps + rows[s]);
    }
  };
  const auto load_values = [&] {
#pragma unroll
    for (int s = 0; s < kTogether; ++s) {
      v_words[s] = {0, 0, 0, 0};
      v_steps[s] = 1;
      if (rows[s] < 0) continue;
      v_words[s] = __ldcg(v_pages + static_cast<std::size_t>(rows[s]) * kLanes + part);
      if constexpr (Pages::kIsCoded) v_steps[s] = __ldcg(p.v_steps + rows[s]);
    }
  };
  const int begin = rank * stretch + warp * kGroups;
  load_keys(begin);
  load_values();
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();

  const int width = (p.num_heads + 2 * p.num_kv_heads) * kDim;
  const auto* qkv =
      static_cast<const __nv_bfloat16*>(p.qkv) + static_cast<std::size_t>(row) * width;
  float q[kOfLoad];
  const float scale = 1.44269504f * rsqrtf(static_cast<float>(kDim));
  if constexpr (kNew) {
    prepare<kDim>(all, sequence, head, kv_head, row, qkv, own, scratch);
    __syncthreads();
    // Of the heads that share keys the first stores them.
    const bool is_first = head == 0 || (head - 1) * p.num_kv_heads / p.num_heads != kv_head;
    const bool stores = is_new && rank == 0 && is_first;
    if constexpr (Pages::kIsCoded) {
      quantise_own<Pages>(p, slot, kv_head, stores, own);
      __syncthreads();
    } else if (stores) {
      store_own(p, slot, kv_head, own);
    }
#pragma unroll
    for (int i = 0; i < kOfLoad; ++i) q[i] = own.q[part * kOfLoad + i];
  } else {
    const auto* own_q = reinterpret_cast<const uint4*>(qkv + head * kDim + part * kOfLoad);
#pragma unroll
    for (int i = 0; i < kOfLoad / 8; ++i) {
      float eight[8];
      widen_8(own_q[i], eight);
#pragma unroll
      for (int e = 0; e < 8; ++e) q[8 * i + e] = eight[e];
    }
  }
#pragma unroll
  for (int i = 0; i < kOfLoad; ++i) q[i] *= scale;
  const auto score_of = [&](const float(&k)[kOfLoad]) {
    float score = 0;
#pragma unroll
    for (int i = 0; i < kOfLoad; ++i) score += q[i] * k[i];
#pragma unroll
    for (int mask = 1; mask < kLanes; mask *= 2) score += __shfl_xor_sync(~0u, score, mask);
    return score;
  };
  Softmax<kOfLoad> softmax;
  if (kNew && is_new && rank == 0 && warp == 0) {  // the row's own key is in no page yet
    float k[kOfLoad], v[kOfLoad];
#pragma unroll
    for (int i = 0; i < kOfLoad; ++i) {
      k[i] = own.k[part * kOfLoad + i];
      v[i] = own.v[part * kOfLoad + i];
    }
    const float score = score_of(k);
    if (group == 0) {
      softmax.largest = score;
      softmax.add(score, v, 1);
    }
  }
  constexpr int kStride = kTogether * kStep;
  for (int at = begin; at < end; at += kStride) {
    float scores[kTogether];
    float joined = softmax.largest;
#pragma unroll
    for (int s = 0; s < kTogether; ++s) {
      float k[kOfLoad];
      Pages::widen(k_words[s], k);
      scores[s] = score_of(k) * k_steps[s];
      if (rows[s] < 0) scores[s] = -2e30f;
      joined = fmaxf(joined, scores[s]);
    }
    // The next keys are under way while these values are weighed, and the next values while those
    // keys are scored.
    load_keys(at + kStride);
    softmax.rescale(joined);
#pragma unroll
    for (int s = 0; s < kTogether; ++s) {
      float v[kOfLoad];
      Pages::widen(v_words[s], v);
      softmax.add(scores[s], v, v_steps[s]);
    }
    load_values();
  }
#pragma unroll
  for (int mask = kLanes; mask < 32; mask *= 2) softmax.join(mask);
  if (lane == 0) {
    parts.largest[warp] = softmax.largest;
    parts.totals[warp] = softmax.total;
  }
  if (group == 0) {
#pragma unroll
    for (int i = 0; i < kOfLoad; ++i) parts.sums[warp][part * kOfLoad + i] = softmax.sums[i];
  }
  __syncthreads();
  auto* out = static_cast<__nv_bfloat16*>(p.out) +
              (static_cast<std::size_t>(row) * p.num_heads + head) * kDim;
  if constexpr (kSplit > 1) cluster_wait();
  join_warps(parts, rank, out);
  if constexpr (kSplit > 1) {
    cluster_sync();
    if (rank == 0) join_blocks(parts, out);
  }
}

// A few rows have fewer heads than the device has places for blocks.
template <class Pages, int kDim, bool kNew>
cudaError_t launch(const NewRows& p, KernelStream stream) {
  const auto rows = static_cast<unsigned>(p.rows.num_tiles);
  const auto heads = static_cast<unsigned>(p.rows.num_heads);
  constexpr unsigned kThreads = kWarps * 32, kFewBlocks = 264;
  if (stream.starts_early && rows * heads * 4 <= kFewBlocks) {
    return launch_behind(decode<Pages, kDim, 4, kNew>, dim3(rows, heads * 4), kThreads, stream, p,
                         0, 4);
  }
  if (stream.starts_early && rows * heads * 2 <= kFewBlocks) {
    return launch_behind(decode<Pages, kDim, 2, kNew>, dim3(rows, heads * 2), kThreads, stream, p,
                         0, 2);
  }
  return launch_behind(decode<Pages, kDim, 1, kNew>, dim3(rows, heads), kThreads, stream, p);
}

template <class Pages, bool kNew>
cudaError_t launch(const NewRows& args, KernelStream stream) {
  switch (args.rows.head_dim) {
    case 32:
      return launch<Pages, 32, kNew>(args, stream);
    case 64:
      return launch<Pages, 64, kNew>(args, stream);
    case 128:
      return launch<Pages, 128, kNew>(args, stream);
    default:
      return launch<Pages, 256, kNew>(args, stream);
  }
}

template <bool kNew>
cudaError_t launch(const NewRows& args, KernelStream stream) {
  switch (args.rows.page_type) {
    case PageType::kI8:
      return launch<I8Pages, kNew>(args, stream);
    case PageType::kF8:
      return launch<F8Pages, kNew>(args, stream);
    default:
      return launch<Bf16Pages, kNew>(args, stream);
  }
}

}  // namespace

cudaError_t decode_attention(const DecodedRows& args, KernelStream stream) {
  NewRows rows{};
  rows.rows = args;
  return launch<false>(rows, stream);
}

cudaError_t decode_new_rows(const NewRows& args, KernelStream stream) {
  return launch<true>(args, stream);
}

}  // namespace fovea::cuda
