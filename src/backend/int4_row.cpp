#include "backend/int4_row.h"

#include <cstring>

namespace fovea {
namespace {

// Elements of a row as floats. Bytes in a mapped file need not be aligned.
template <class T, class Widen>
void widen_row(const std::byte* from, const Widen& widen, std::vector<float>& to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    T element;
    std::memcpy(&element, from + i * sizeof(T), sizeof element);
    to[i] = widen(element);
  }
}

void read_row(const TensorView& weight, std::int64_t row, std::vector<float>& values) {
  const std::int64_t cols = weight.shape[1];
  values.resize(static_cast<std::size_t>(cols));
  const std::byte* from =
      weight.data + static_cast<std::size_t>(row * cols) * dtype_size(weight.dtype);
  switch (weight.dtype) {
    case DType::kF32:
      return widen_row<float>(
          from, [](float x) { return x; }, values);
    case DType::kBf16:
      return widen_row<std::uint16_t>(from, bf16_to_f32, values);
    case DType::kF16:
      return widen_row<std::uint16_t>(from, f16_to_f32, values);
    default:
      return widen_row<std::uint8_t>(from, f8e4m3_to_f32, values);
  }
}

}  // namespace

void Int4Row::quantise(const MatrixSource& source, std::int64_t row) {
  read_row(source.weight, row, values_);
  if (!source.row_scale.empty()) {
    const float factor = source.row_scale.as<float>()[row];
    for (float& value : values_) value *= factor;
  }
  step_ = int4_row_step(values_);
  groups_.resize(values_.size() / kInt4Group);
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    groups_[g] = quantise_int4(values_.data() + g * kInt4Group, step_);
  }
}

}  // namespace fovea
