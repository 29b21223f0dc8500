#include "conformance/conformance.h"

namespace fovea::conformance {
namespace {

using Pictures = ConformanceTest;

TEST_P(Pictures, PatchesAreOrderedChannelRowColumn) {
  for (const std::int64_t patch : {2, 14}) {
    const std::int64_t side = 3 * patch;
    std::vector<std::uint8_t> crops;
    for (const std::int32_t value : random_ints(2 * side * side * 3, 256, 1)) {
      crops.push_back(static_cast<std::uint8_t>(value));
    }
    const Floats values = random_floats(256, 2);
    const Guarded out(DType::kF32, {2 * 9, 3 * patch * patch});
    ops().patchify(stream(), Guarded::of(crops, {2, side, side, 3}).view(),
                   Guarded::of(values, {256}).view(), static_cast<int>(patch), out.view());
    EXPECT_EQ(out.floats(), reference::patchify(crops, values, 2, side, patch));
    out.check_guards();
  }
}

TEST_P(Pictures, StitchesAndPoolsEveryTiling) {
  struct Case {
    int rows, cols, grid, margin;
    std::int64_t width;
  };
  for (const Case c : {Case{1, 1, 27, 4, 20}, Case{1, 2, 27, 4, 24}, Case{2, 3, 27, 4, 9},
                       Case{4, 3, 6, 1, 33}, Case{7, 2, 5, 0, 8}}) {
    const std::int64_t crops = c.rows * c.cols + (c.rows * c.cols > 1 ? 1 : 0);
    const std::int64_t cells = std::int64_t{c.grid} * c.grid;
    const Floats features = random_floats(crops * cells * c.width, 3);
    const Guarded out(DType::kF32, {cells, 2 * c.width});
    ops().stitch_and_pool(stream(), Guarded::of(features, {crops, cells, c.width}).view(), c.rows,
                          c.cols, c.margin, out.view());
    expect_close(out,
                 reference::stitch_and_pool(features, c.rows, c.cols, c.grid, c.width, c.margin),
                 Tolerance::kElementwise, std::to_string(c.rows) + " x " + std::to_string(c.cols));
  }
}

FOVEA_CONFORMANCE(Pictures);

}  // namespace
}  // namespace fovea::conformance
