#include <algorithm>
#include <functional>

#include "backend/cpu/cpu_ops.h"
#include "base/check.h"
#include "base/math.h"

namespace fovea::cpu {

void CpuOps::self_attention(Stream&, TensorView qkv, int tokens, int num_heads, TensorView out) {
  const std::int64_t dim = out.shape.back();
  FOVEA_CHECK(tokens > 0 && num_heads > 0 && dim % num_heads == 0, "{} tokens, {} heads of {}",
              tokens, num_heads, dim);
  const std::int64_t head_dim = dim / num_heads;
  FOVEA_CHECK(head_dim % 8 == 0 && head_dim <= kMaxHeadDim, "head_dim {}", head_dim);
  const std::int64_t crops = out.num_elements() / dim / tokens;
  FOVEA_CHECK(
      qkv.num_elements() == crops * tokens * 3 * dim && out.num_elements() == crops * tokens * dim,
      "qkv {}, out {}", qkv.shape.to_string(), out.shape.to_string());
  // Each block packs the keys of its head again, so blocks are as tall as the kernel allows unless
  // threads would have nothing to do.
  const std::int64_t wanted = 2 * std::int64_t{pool_.num_threads()};
  const std::int64_t fewest = ceil_div(std::int64_t{tokens}, std::int64_t{kernels_.attention_rows});
  const std::int64_t most = std::max(fewest, std::int64_t{tokens} / (4 * kernels_.row_step));
  const std::int64_t blocks = std::clamp(ceil_div(wanted, crops * num_heads), fewest, most);
  const std::int64_t rows = std::min<std::int64_t>(
      kernels_.attention_rows,
      round_up(ceil_div(std::int64_t{tokens}, blocks), std::int64_t{kernels_.row_step}));
  const std::int64_t row_blocks = ceil_div(std::int64_t{tokens}, rows);

  const auto run_one = [&](std::int64_t item, int thread_idx) {
    const std::int64_t row = item % row_blocks * rows;
    const std::int64_t head = item / row_blocks % num_heads;
    const std::int64_t crop = item / row_blocks / num_heads;
    const float* base = qkv.as<float>() + crop * tokens * 3 * dim + head * head_dim;
    AttentionArgs args{};
    args.q = base + row * 3 * dim;
    args.q_stride = 3 * dim;
    args.num_rows = std::min(rows, tokens - row);
    args.first_position = row;
    args.prefix = tokens;
    args.num_keys = tokens;
    args.head_dim = static_cast<std::int32_t>(head_dim);
    args.kv.k = base + dim;
    args.kv.v = base + 2 * dim;
    args.kv.row_stride = 3 * dim;
    args.out = out.as<float>() + (crop * tokens + row) * dim + head * head_dim;
    args.out_stride = dim;
    kernels_.attend(&args, scratch_.of(thread_idx));
  };
  pool_.parallel_for(crops * num_heads * row_blocks, std::ref(run_one));
}

// What the parts of paged_attention share.
struct CpuOps::PagedCall {
  TensorView qkv;
  KvPages pages;
  HeadLayout heads;
  const AttentionBatch& batch;
  TensorView out;
  float* partials = nullptr;  // [decoded rows * heads * blocks][head_dim + 2]

  std::int64_t qkv_stride() const {
    return std::int64_t{heads.num_heads + 2 * heads.num_kv_heads} * heads.head_dim;
  }
  std::int64_t out_stride() const { return std::int64_t{heads.num_heads} * heads.head_dim; }
  std::int64_t rows(std::size_t s) const { return batch.query_start[s + 1] - batch.query_start[s]; }
  const float* q(std::int64_t row, std::int64_t head) const {
    return qkv.as<float>() + row * qkv_stride() + head * heads.head_dim;
  }
  float* o(std::int64_t row, std::int64_t head) const {
    return out.as<float>() + row * out_stride() + head * heads.head_dim;
  }
  float* partial(std::int64_t index) const { return partials + index * (heads.head_dim + 2); }
  // Keys that row `row` of the sequence sees.
  std::int64_t visible_to(std::size_t s, std::int64_t row) const {
    const std::int64_t position = batch.context_len[s] - rows(s) + row;
    const std::int64_t prefix = batch.prefix_len[s];
    const std::int64_t seen = position < prefix ? std::max(prefix, position + 1) : position + 1;
    return std::min<std::int64_t>(seen, batch.context_len[s]);
  }
  KeyValueArgs kv(std::size_t s, std::int64_t head) const {
    const std::int64_t head_elements = std::int64_t{heads.page_size} * heads.head_dim;
    const std::int64_t kv_head = head * heads.num_kv_heads / heads.num_heads;
    const std::size_t offset =
        static_cast<std::size_t>(kv_head * head_elements) * dtype_size(pages.k.dtype);
    KeyValueArgs kv{};
    kv.k_pages = pages.k.data + offset;
    kv.v_pages = pages.v.data + offset;
    kv.page_stride = head_elements * heads.num_kv_heads;
    kv.page_table = batch.page_table.data() + static_cast<std::int64_t>(s) * batch.max_pages;
    kv.page_size = heads.page_size;
    kv.type = pages.k.dtype == DType::kF32    ? PageType::kF32
              : pages.k.dtype == DType::kBf16 ? PageType::kBf16
              : pages.k.dtype == DType::kI8   ? PageType::kI8
                                              : PageType::kF8;
    if (is_coded(pages.k.dtype)) {
      kv.k_scales = pages.k_scale.as<float>() + kv_head * heads.page_size;
      kv.v_scales = pages.v_scale.as<float>() + kv_head * heads.page_size;
      kv.scale_stride = std::int64_t{heads.page_size} * heads.num_kv_heads;
    }
    return kv;
  }
};

void CpuOps::plan_attention(const PagedCall& call) {
  constexpr std::int64_t kDecodedRows =
      3;  // sequences with more rows go through the blocked kernel
  const std::size_t sequences = call.batch.context_len.size();
  const std::int64_t threads = pool_.num_threads();
  const std::int64_t heads = call.heads.num_heads;
  std::int64_t decoded = 0;
  for (std::size_t s = 0; s < sequences; ++s) {
    decoded += call.rows(s) <= kDecodedRows ? call.rows(s) * heads : 0;
  }
  decoded = std::max<std::int64_t>(1, decoded);
  sequence_plans_.clear();
  std::int64_t items = 0;
  std::int64_t partials = 0;
  for (std::size_t s = 0; s < sequences; ++s) {
    SequencePlan plan{};
    plan.first_item = items;
    plan.first_partial = partials;
    const std::int64_t rows = call.rows(s);
    if (rows > kDecodedRows) {
      const std::int64_t fewest = ceil_div(rows, std::int64_t{kernels_.attention_rows});
      const std::int64_t most = std::max(fewest, rows / (4 * kernels_.row_step));
      const std::int64_t blocks = std::clamp(ceil_div(2 * threads, heads), fewest, most);
      plan.rows_per_block =
          std::min<std::int64_t>(kernels_.attention_rows,
                                 round_up(ceil_div(rows, blocks), std::int64_t{kernels_.row_step}));
      plan.row_blocks = ceil_div(rows, plan.rows_per_block);
      items += plan.row_blocks * heads;
    } else {
      // More threads than rows x heads: cut the context, but not below what a thread is worth.
      constexpr std::int64_t kFewestBlocks = 2;
      const std::int64_t keys = std::max<std::int64_t>(1, call.batch.context_len[s]);
      plan.blocks = ceil_div(keys, kKeyBlock);
      const std::int64_t most = std::max<std::int64_t>(1, plan.blocks / kFewestBlocks);
      const std::int64_t cuts = decoded >= threads ? 1 : std::min(most, ceil_div(threads, decoded));
      plan.blocks_per_split = ceil_div(plan.blocks, cuts);
      plan.splits = ceil_div(plan.blocks, plan.blocks_per_split);
      items += rows * heads * plan.splits;
      partials += rows * heads * plan.blocks;
    }
    sequence_plans_.push_back(plan);
  }
  SequencePlan end{};
  end.first_item = items;
  end.first_partial = partials;
  sequence_plans_.push_back(end);
}

void CpuOps::attend_prompt_block(const PagedCall& call, std::size_t s, std::int64_t item,
                                 float* scratch) const {
  const SequencePlan& plan = sequence_plans_[s];
  const std::int64_t head = item / plan.row_blocks;
  // Blocks late in the prompt see the most keys: take them first.
  const std::int64_t block = plan.row_blocks - 1 - item % plan.row_blocks;
  const std::int64_t row = block * plan.rows_per_block;
  const std::int64_t first_row = call.batch.query_start[s] + row;
  AttentionArgs args{};
  args.q = call.q(first_row, head);
  args.q_stride = call.qkv_stride();
  args.num_rows = std::min(plan.rows_per_block, call.rows(s) - row);
  args.first_position = call.batch.context_len[s] - call.rows(s) + row;
  args.prefix = call.batch.prefix_len[s];
  args.num_keys = call.batch.context_len[s];
  args.head_dim = call.heads.head_dim;
  args.kv = call.kv(s, head);
  args.out = call.o(first_row, head);
  args.out_stride = call.out_stride();
  kernels_.attend(&args, scratch);
}

void CpuOps::attend_decoded_row(const PagedCall& call, std::size_t s, std::int64_t item) const {
  const SequencePlan& plan = sequence_plans_[s];
  const std::int64_t split = item % plan.splits;
  const std::int64_t unit = item / plan.splits;  // (row, head)
  const std::int64_t head = unit % call.heads.num_heads;
  const std::int64_t row = unit / call.heads.num_heads;
  DecodeArgs args{};
  args.q = call.q(call.batch.query_start[s] + row, head);
  args.num_keys = call.visible_to(s, row);
  args.block_begin = split * plan.blocks_per_split;
  args.block_end =
      std::min(ceil_div(args.num_keys, kKeyBlock), args.block_begin + plan.blocks_per_split);
  args.head_dim = call.heads.head_dim;
  args.kv = call.kv(s, head);
  args.partials = call.partial(plan.first_partial + unit * plan.blocks + args.block_begin);
  kernels_.attend_decode(&args);
  if (plan.splits == 1) {
    kernels_.join_blocks(args.partials, args.block_end, args.head_dim,
                         call.o(call.batch.query_start[s] + row, head));
  }
}

void CpuOps::join_splits(const PagedCall& call) const {
  for (std::size_t s = 0; s + 1 < sequence_plans_.size(); ++s) {
    const SequencePlan& plan = sequence_plans_[s];
    if (plan.row_blocks != 0 || plan.splits == 1) continue;
    for (std::int64_t unit = 0; unit < call.rows(s) * call.heads.num_heads; ++unit) {
      const std::int64_t row = unit / call.heads.num_heads;
      kernels_.join_blocks(call.partial(plan.first_partial + unit * plan.blocks),
                           ceil_div(call.visible_to(s, row), kKeyBlock), call.heads.head_dim,
                           call.o(call.batch.query_start[s] + row, unit % call.heads.num_heads));
    }
  }
}

void CpuOps::paged_attention(Stream&, TensorView qkv, KvPages pages, HeadLayout heads,
                             const AttentionBatch& batch, TensorView out) {
  const std::size_t sequences = batch.context_len.size();
  FOVEA_CHECK(batch.query_start.size() == sequences + 1 && batch.prefix_len.size() == sequences &&
                  batch.page_table.size() >= sequences * static_cast<std::size_t>(batch.max_pages),
              "{} sequences, {} starts, {} pages", sequences, batch.query_start.size(),
              batch.page_table.size());
  FOVEA_CHECK(heads.page_size % 8 == 0 && heads.page_size <= 64 && heads.page_size > 0,
              "page_size {}", heads.page_size);
  FOVEA_CHECK(heads.head_dim % 8 == 0 && heads.head_dim <= kMaxHeadDim, "head_dim {}",
              heads.head_dim);
  check_pages(pages, heads);
  PagedCall call{qkv, pages, heads, batch, out};
  plan_attention(call);
  call.partials = partials_memory_.get<float>(
      static_cast<std::size_t>(sequence_plans_.back().first_partial * (heads.head_dim + 2)));
  const auto run_one = [&](std::int64_t item, int thread_idx) {
    const auto after = std::upper_bound(
        sequence_plans_.begin(), sequence_plans_.end(), item,
        [](std::int64_t value, const SequencePlan& plan) { return value < plan.first_item; });
    const auto s = static_cast<std::size_t>(after - sequence_plans_.begin() - 1);
    const std::int64_t local = item - sequence_plans_[s].first_item;
    if (sequence_plans_[s].row_blocks != 0) {
      attend_prompt_block(call, s, local, scratch_.of(thread_idx));
    } else {
      attend_decoded_row(call, s, local);
    }
  };
  pool_.parallel_for(sequence_plans_.back().first_item, std::ref(run_one));
  join_splits(call);
}

}  // namespace fovea::cpu
