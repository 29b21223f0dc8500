// Part of gemm_kernels.h, inside its namespace, for instruction sets with a bf16 dot product: rows
// of x are rounded to bf16 and both operands are read as pairs along the depth.

// acc[lane] += a_even * b_even[lane] + a_odd * b_odd[lane].
static inline Floats dot_pairs(Floats acc, uint32_t a, Words b) {
#if defined(__AVX512BF16__)
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a))),
                          reinterpret_cast<__m512bh>(b));
#else
  return vbfdotq_f32(acc, vreinterpretq_bf16_u32(reinterpret_cast<uint32x4_t>(b)),
                     vreinterpretq_bf16_u32(vdupq_n_u32(a)));
#endif
}

// One row of floats -> bf16, nearest even (NaN stays NaN: the carry cannot reach past a quiet one).
static inline void round_row(const float* x, int64_t count, uint16_t* rounded) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof(bits));
    const uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t quiet_nan = (bits >> 16) | 0x40u;
    rounded[i] = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : nearest);
  }
}

// As pack_rows, with pairs: [tile][ceil(depth / 2)][kTileRows] words.
static void pack_row_pairs(const GemmArgs& g, int64_t row_begin, int64_t row_end, int64_t k_begin,
                           int64_t depth, uint32_t* packed) {
  const int64_t pairs = (depth + 1) / 2;
  alignas(64) uint16_t rounded[kDepth + 1];
  for (int64_t row = row_begin; row < row_end; row += kTileRows) {
    for (int64_t r = 0; r < kTileRows; ++r) {
      if (row + r >= row_end) {
        for (int64_t k = 0; k < pairs; ++k) packed[k * kTileRows + r] = 0;
        continue;
      }
      round_row(row_of(g, row + r) + k_begin, depth, rounded);
      rounded[depth] = 0;
      for (int64_t k = 0; k < pairs; ++k) {
        packed[k * kTileRows + r] = static_cast<uint32_t>(rounded[2 * k]) |
                                    (static_cast<uint32_t>(rounded[2 * k + 1]) << 16);
      }
    }
    packed += pairs * kTileRows;
  }
}

// As packed_tile, over pairs. b is [pairs][kPanelCols] words.
static void dot_tile(int64_t pairs, const uint32_t* a, const uint16_t* b, float* sums,
                     bool accumulate) {
  Floats acc[kTileRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[r][v] = Floats{};
  }
  for (int64_t k = 0; k < pairs; ++k) {
    Words w[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) w[v] = load_pairs(b + 2 * v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[r][v] = dot_pairs(acc[r][v], a[r], w[v]);
    }
    a += kTileRows;
    b += 2 * kPanelCols;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      float* out = sums + r * kPanelCols + v * kLanes;
      store(out, accumulate ? load(out) + acc[r][v] : acc[r][v]);
    }
  }
}

// One depth slice of gemm_tile.
// NOLINTNEXTLINE(readability-function-size): the kernels' common arguments
static void dot_slice(const GemmArgs& g, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                      int64_t panel_end, int64_t k_begin, int64_t depth, float* scratch,
                      float* sums) {
  uint32_t* packed = reinterpret_cast<uint32_t*>(scratch);
  pack_row_pairs(g, row_begin, row_end, k_begin, depth, packed);
  const int64_t num_tiles = (row_end - row_begin + kTileRows - 1) / kTileRows;
  const int64_t pairs = (depth + 1) / 2;
  const int64_t padded_k = g.k + (g.k & 1);
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const uint16_t* b =
        static_cast<const uint16_t*>(g.panels) + (panel * padded_k + k_begin) * kPanelCols;
    float* panel_sums = sums + (panel - panel_begin) * num_tiles * kTileRows * kPanelCols;
    for (int64_t tile = 0; tile < num_tiles; ++tile) {
      dot_tile(pairs, packed + tile * pairs * kTileRows, b,
               panel_sums + tile * kTileRows * kPanelCols, k_begin != 0);
    }
  }
}
