#include "backend/cuda/native_kernels.h"
#include "backend/cuda/page_elements.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLoads = 4;  // of a thread, under way together
constexpr int kOfBlock = kThreads * kLoads;

// Grid: x = page of the sequence, y = sequence, z = stretches of the page, of keys and of values.
template <class Pages>
__global__ void __launch_bounds__(kThreads) widen(WidenedPages p) {
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  const int sequence = p.first_sequence + blockIdx.y;
  const std::size_t entry = static_cast<std::size_t>(sequence) * p.max_pages + blockIdx.x;
  const int first_position = blockIdx.x * p.page_size;
  const int in_page = p.tables[p.context_at + sequence] - first_position;
  const int to = p.tables[p.widened_at + entry];
  if (in_page <= 0 || to < 0) return;
  const auto from = static_cast<std::size_t>(p.tables[p.pages_at + entry]);
  const bool is_value = blockIdx.z % 2 == 1;
  const int rows = p.num_kv_heads * p.page_size;
  const int loads_of_row = p.head_dim / Pages::kOfLoad;
  const std::size_t page_loads = static_cast<std::size_t>(rows) * loads_of_row;
  const auto* codes =
      static_cast<const uint4*>(is_value ? p.v_pages : p.k_pages) + from * page_loads;
  const float* steps = (is_value ? p.v_steps : p.k_steps) + from * rows;
  auto* out = static_cast<uint4*>(is_value ? p.v : p.k) + to * page_loads * 2;
  const int begin = blockIdx.z / 2 * kOfBlock + threadIdx.x;
  uint4 words[kLoads];
  float counts[kLoads];
#pragma unroll
  for (int j = 0; j < kLoads; ++j) {
    const int i = begin + j * kThreads;
    const int row = i / loads_of_row;
    words[j] = {0, 0, 0, 0};
    counts[j] = 0;
    if (row < rows && row % p.page_size < in_page) {
      words[j] = __ldcg(codes + i);
      counts[j] = __ldcg(steps + row);
    }
  }
#pragma unroll
  for (int j = 0; j < kLoads; ++j) {
    const int i = begin + j * kThreads;
    if (i >= static_cast<int>(page_loads)) continue;
    float values[Pages::kOfLoad];
    Pages::widen(words[j], values);
    unsigned pairs[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      pairs[e] = pair_of(values[2 * e] * counts[j], values[2 * e + 1] * counts[j]);
    }
    out[2 * i] = {pairs[0], pairs[1], pairs[2], pairs[3]};
    out[2 * i + 1] = {pairs[4], pairs[5], pairs[6], pairs[7]};
  }
}

}  // namespace

cudaError_t widen_pages(const WidenedPages& args, KernelStream stream) {
  const int loads = args.num_kv_heads * args.page_size * args.head_dim / I8Pages::kOfLoad;
  const auto stretches = static_cast<unsigned>((loads + kOfBlock - 1) / kOfBlock);
  const dim3 grid(static_cast<unsigned>(args.max_pages), static_cast<unsigned>(args.num_sequences),
                  2 * stretches);
  return launch_behind(args.type == PageType::kI8 ? widen<I8Pages> : widen<F8Pages>, grid, kThreads,
                       stream, args);
}

}  // namespace fovea::cuda
