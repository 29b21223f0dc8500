#include <algorithm>
#include <cstdint>
#include <cstring>

#include "backend/portable/portable_ops.h"
#include "backend/portable/shapes.h"
#include "base/math.h"
#include "kernels/sample.h"

namespace fovea::portable {

using kernels::KernelId;

namespace {

// Of a block; see draw_word() and entries.inc.
constexpr std::int64_t kLeastWarps = kernels::kSegmentSteps, kMostWarps = 26;
constexpr std::int64_t kLeastSegments = 4;  // for which a block of their own pays

// Blocks that share a row's words: as many as run at once, but two at least for long rows. What
// comes out does not depend on it.
std::uint32_t blocks_of_row(std::int64_t rows, std::int64_t segments, const BlockRoom& room) {
  std::uint32_t blocks = 1;
  while (2 * blocks <= room.cluster && segments / (2 * blocks) >= kLeastSegments &&
         (blocks == 1 || rows * 2 * blocks <= room.blocks)) {
    blocks *= 2;
  }
  return blocks;
}

// Aborts unless [begin, begin + count) lies in a list of `size`.
void check_range(std::int32_t begin, std::int32_t count, std::size_t size, const char* what) {
  FOVEA_CHECK(begin >= 0 && count >= 0 &&
                  static_cast<std::size_t>(begin) + static_cast<std::size_t>(count) <= size,
              "{} {} + {} of {}", what, begin, count, size);
}

kernels::SampleRow kernel_row(const SamplingRow& row, const SampleArgs& args) {
  const bool is_penalised =
      row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0;
  FOVEA_CHECK(row.repetition_penalty > 0, "repetition_penalty {}", row.repetition_penalty);
  const std::int32_t most_top = args.top_ids.empty() ? 0 : kMaxTopWords;
  FOVEA_CHECK(row.num_top >= 0 && row.num_top <= most_top, "{} top words of {}", row.num_top,
              most_top);
  const std::int32_t seen_count = is_penalised ? row.seen_count : 0;
  check_range(row.allowed_begin, row.allowed_count, args.mask_ids.size(), "allowed ids");
  check_range(row.suppressed_begin, row.suppressed_count, args.mask_ids.size(), "suppressed ids");
  check_range(row.seen_begin, seen_count, args.seen.size(), "seen words");
  check_range(row.bias_begin, row.bias_count, args.biases.size(), "biases");
  const auto halves = [](std::uint64_t value, std::uint32_t(&out)[2]) {
    out[0] = static_cast<std::uint32_t>(value);
    out[1] = static_cast<std::uint32_t>(value >> 32);
  };
  kernels::SampleRow out{};
  out.temperature = row.temperature;
  out.top_p = row.top_p;
  out.min_p = row.min_p;
  out.top_k = row.top_k > 0 ? narrow(row.top_k) : 0;
  halves(row.seed, out.seed);
  halves(row.position, out.position);
  out.allowed_begin = narrow(row.allowed_begin);
  out.allowed_count = narrow(row.allowed_count);
  out.suppressed_begin = narrow(row.suppressed_begin);
  out.suppressed_count = narrow(row.suppressed_count);
  out.repetition_penalty = row.repetition_penalty;
  out.presence_penalty = row.presence_penalty;
  out.frequency_penalty = row.frequency_penalty;
  out.seen_begin = narrow(row.seen_begin);
  out.seen_count = narrow(seen_count);
  out.bias_begin = narrow(row.bias_begin);
  out.bias_count = narrow(row.bias_count);
  out.num_top = narrow(row.num_top);
  return out;
}

static_assert(sizeof(kernels::SampleSeen) == sizeof(SeenWord));
static_assert(sizeof(kernels::SampleBias) == sizeof(WordBias));

}  // namespace

void PortableOps::sample(Stream& stream, const SampleArgs& args) {
  const std::int64_t vocab = args.logits.shape.back();
  const auto rows = static_cast<std::int64_t>(args.rows.size());
  FOVEA_CHECK(args.logits.num_elements() == rows * vocab && args.ids.num_elements() == rows &&
                  args.logprobs.num_elements() == rows && args.logits.dtype == DType::kF32,
              "logits {} for {} rows", args.logits.shape.to_string(), rows);
  const bool lists_top = !args.top_ids.empty();
  FOVEA_CHECK(lists_top == !args.top_logprobs.empty() &&
                  (!lists_top || (args.top_ids.num_elements() == rows * kMaxTopWords &&
                                  args.top_logprobs.num_elements() == rows * kMaxTopWords)),
              "top words {} and {} for {} rows", args.top_ids.shape.to_string(),
              args.top_logprobs.shape.to_string(), rows);
  if (rows == 0) return;

  // One table: rows, masks, seen words, biases.
  bytes_.clear();
  const auto append = [&](const void* data, std::size_t size) {
    const std::size_t at = bytes_.size();
    bytes_.resize(round_up(at + size, std::size_t{16}));
    if (size > 0) std::memcpy(bytes_.data() + at, data, size);
    return at;
  };
  std::vector<kernels::SampleRow> table_rows;
  for (const SamplingRow& row : args.rows) table_rows.push_back(kernel_row(row, args));
  append(table_rows.data(), table_rows.size() * sizeof(kernels::SampleRow));
  const std::size_t masks_at = append(args.mask_ids.data(), args.mask_ids.size_bytes());
  const std::size_t seen_at = append(args.seen.data(), args.seen.size_bytes());
  const std::size_t biases_at = append(args.biases.data(), args.biases.size_bytes());
  const std::byte* table = sample_table_.put(launcher_, stream, bytes_);

  if (table == nullptr) return;

  const BlockRoom room = launcher_.room();
  const std::int64_t segments = ceil_div(vocab, std::int64_t{kernels::kSegmentWords});
  const std::uint32_t blocks = blocks_of_row(rows, segments, room);
  const auto segments_each = narrow(ceil_div(segments, std::int64_t{blocks}));
  KernelId kernel = KernelId::sample_in_shared;
  std::size_t shared_bytes =
      kernels::sample_shared_bytes<kernels::WordsInShared>(narrow(segments), blocks);
  std::byte* words = nullptr;
  if (shared_bytes > room.shared_bytes) {
    kernel = KernelId::sample_in_memory;
    shared_bytes = kernels::sample_shared_bytes<kernels::WordsInMemory>(narrow(segments), blocks);
    const auto row_words = static_cast<std::size_t>(segments * kernels::kSegmentWords);
    words = sample_memory_.get(launcher_, stream,
                               static_cast<std::size_t>(rows) * row_words * sizeof(float));
    if (words == nullptr) return;
  }
  const bool loads_four =
      vocab % 4 == 0 && reinterpret_cast<std::uintptr_t>(args.logits.data) % 16 == 0;
  const kernels::SampleParams params{narrow(vocab),
                                     narrow(segments),
                                     blocks,
                                     lists_top ? narrow(kMaxTopWords) : 0,
                                     loads_four ? 1u : 0u,
                                     0,
                                     0,
                                     0};
  const auto warps = std::clamp(std::int64_t{segments_each}, kLeastWarps, kMostWarps);
  launch(stream, kernel, {.x = narrow(rows), .y = blocks, .cluster = blocks},
         narrow(warps * kernels::kWarpSize), shared_bytes, params,
         {args.logits.data, table, table + masks_at, table + seen_at, table + biases_at, words,
          args.ids.data, args.logprobs.data, args.top_ids.data, args.top_logprobs.data});
}

}  // namespace fovea::portable
