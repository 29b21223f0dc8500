#include "image/resize.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <gtest/gtest.h>

#include "image/decode.h"
#include "image/lanczos.h"
#include "image/transpose.h"
#include "image/weigh_rows.h"
#include "picture_files.h"

namespace fovea {
namespace {

using test::noise_image;

TEST(Resize, OddSizesEqualPillow) {
  const auto more = test::read_golden_json("more.json");
  for (const int num_threads : {1, 3}) {
    ThreadPool pool(num_threads);
    for (const auto& golden : more.at("resizes").as_array()) {
      const std::string file(golden.at("file").as_string());
      const auto image = decode_image(test::read_picture(file), {});
      ASSERT_TRUE(image.ok());
      const int width = golden.at("size").at(0).to_number<int>();
      const int height = golden.at("size").at(1).to_number<int>();
      const Image resized = resize_lanczos(*image, width, height, pool);
      EXPECT_EQ(test::rgb_sha256(resized), std::string(golden.at("sha256").as_string()))
          << file << " to " << width << "x" << height;
    }
  }
}

TEST(Resize, EveryRowArrivesOnce) {
  ThreadPool pool(4);
  const Image image = noise_image(50, 700);
  std::vector<std::atomic<int>> calls(333);
  resize_lanczos_rows(image, 40, 333, pool,
                      [&](int y, const std::uint8_t*) { ++calls[static_cast<std::size_t>(y)]; });
  for (const auto& count : calls) EXPECT_EQ(count.load(), 1);
}

TEST(Lanczos, WeightsOfEachOutputAddUpToOne) {
  for (const auto& [in, out] :
       std::vector<std::pair<int, int>>{{850, 1176}, {850, 378}, {1, 9}, {2, 1000}, {5000, 3}}) {
    const PassWeights pass = lanczos_weights(in, out);
    for (int o = 0; o < out; ++o) {
      const auto index = static_cast<std::size_t>(o);
      ASSERT_GE(pass.first[index], 0);
      ASSERT_LE(pass.first[index] + pass.num_taps[index], in);
      ASSERT_LE(pass.num_taps[index], 2 * pass.max_pairs);
      double sum = 0;
      for (int i = 0; i < pass.num_taps[index]; ++i) sum += pass.pairs_of(o)[i / 2].weight[i % 2];
      EXPECT_NEAR(sum / (1 << kWeightBits), 1.0, 1e-6 * pass.num_taps[index]);
    }
  }
}

// The kernels multiply the two parts; the second bound keeps the sum of two 8-bit products within
// 16 bits.
TEST(Lanczos, SplitWeightsAreWholeAndSmallEnough) {
  for (const int in : {1, 2, 3, 5, 7, 100, 850, 4000}) {
    for (const int out : {1, 2, 3, 50, 378, 1176, 5000}) {
      for (const TapPair& pair : lanczos_weights(in, out).pairs) {
        for (int i = 0; i < 2; ++i) {
          ASSERT_EQ(pair.weight[i], pair.high[i] * 65536 + pair.low[i]);
        }
        ASSERT_LE(255 * (std::abs(pair.high[0]) + std::abs(pair.high[1])), 32767);
      }
    }
  }
}

std::vector<std::pair<const char*, WeighRows>> kernels() {
  std::vector<std::pair<const char*, WeighRows>> all = {{"best", best_weigh_rows()}};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) all.emplace_back("avx2", weigh_rows_avx2);
  if (__builtin_cpu_supports("avx512bw")) all.emplace_back("avx512", weigh_rows_avx512);
#endif
  return all;
}

TEST(WeighRows, EveryKernelEqualsTheGenericOne) {
  for (const auto& [in, out] :
       std::vector<std::pair<int, int>>{{1, 4}, {2, 900}, {60, 90}, {90, 7}, {700, 2}}) {
    const PassWeights pass = lanczos_weights(in, out);
    for (const int width : {1, 15, 16, 31, 32, 33, 63, 64, 65, 96, 100, 1134}) {
      Image image = noise_image(width, in, 7);
      // Extremes next to each other overshoot most.
      for (std::size_t i = 0; i < image.rgb.size() / 2; ++i)
        image.rgb[i] = image.rgb[i] > 127 ? 255 : 0;
      std::vector<std::uint8_t> wanted(static_cast<std::size_t>(width)), got(wanted.size());
      for (int o = 0; o < out; ++o) {
        const auto index = static_cast<std::size_t>(o);
        const std::uint8_t* rows = image.rgb.data() + pass.first[index] * width;
        weigh_rows_generic(rows, width, pass.pairs_of(o), pass.num_taps[index], wanted.data(),
                           wanted.size());
        for (const auto& [name, kernel] : kernels()) {
          std::fill(got.begin(), got.end(), std::uint8_t{77});
          kernel(rows, width, pass.pairs_of(o), pass.num_taps[index], got.data(), got.size());
          ASSERT_EQ(got, wanted) << name << " " << in << "->" << out << " width " << width;
        }
      }
    }
  }
}

TEST(Transpose, EqualsTheDefinitionForOddSizes) {
  for (const int rows : {1, 15, 16, 17, 32, 50}) {
    for (const int columns : {1, 16, 31, 48, 100}) {
      const Image image = noise_image(columns + 3, rows);
      const std::ptrdiff_t in_stride = columns + 3, out_stride = rows + 5;
      std::vector<std::uint8_t> out(static_cast<std::size_t>(columns * out_stride), 9);
      transpose_bytes(image.rgb.data(), in_stride, rows, columns, out.data(), out_stride);
      for (int c = 0; c < columns; ++c) {
        for (int r = 0; r < out_stride; ++r) {
          const int wanted = r < rows ? image.rgb[static_cast<std::size_t>(r * in_stride + c)] : 9;
          ASSERT_EQ(out[static_cast<std::size_t>(c * out_stride + r)], wanted);
        }
      }
    }
  }
}

}  // namespace
}  // namespace fovea
