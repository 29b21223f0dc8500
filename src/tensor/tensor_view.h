#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "base/check.h"
#include "tensor/dtype.h"

namespace fovea {

/// Sizes of up to four dimensions, outermost first.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<std::int64_t> sizes) {
    for (const std::int64_t size : sizes) push_back(size);
  }

  constexpr int rank() const { return rank_; }
  constexpr std::int64_t operator[](int dim) const { return sizes_[static_cast<std::size_t>(dim)]; }
  constexpr std::int64_t back() const { return sizes_[static_cast<std::size_t>(rank_ - 1)]; }
  /// Precondition: rank() < kMaxRank.
  constexpr void push_back(std::int64_t size) { sizes_[static_cast<std::size_t>(rank_++)] = size; }

  /// Product of all sizes; 1 for rank 0.
  constexpr std::int64_t num_elements() const {
    std::int64_t product = 1;
    for (int i = 0; i < rank_; ++i) product *= (*this)[i];
    return product;
  }

  /// "[729, 1152]"
  std::string to_string() const {
    std::string text = "[";
    for (int i = 0; i < rank_; ++i) text += (i == 0 ? "" : ", ") + std::to_string((*this)[i]);
    return text + "]";
  }

  friend constexpr bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<std::int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

/// A dense row-major tensor in memory that somebody else owns. Passed by value, never stored past
/// the call unless the comment says who outlives whom. An empty view (no data) stands for "not
/// given".
struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  std::byte* data = nullptr;

  bool empty() const { return data == nullptr; }
  std::int64_t num_elements() const { return shape.num_elements(); }
  std::size_t size_bytes() const {
    return static_cast<std::size_t>(num_elements()) * dtype_size(dtype);
  }

  /// Elements as T; the caller names the type that matches dtype.
  template <class T>
  T* as() const {
    FOVEA_DCHECK(sizeof(T) == dtype_size(dtype), "{} read with an element of {} bytes",
                 dtype_name(dtype), sizeof(T));
    return reinterpret_cast<T*>(data);
  }

  /// Rows [begin, begin + count) of the first dimension.
  TensorView rows(std::int64_t begin, std::int64_t count) const {
    FOVEA_DCHECK(begin >= 0 && count >= 0 && begin + count <= shape[0], "rows {}+{} of {}", begin,
                 count, shape.to_string());
    TensorView view = *this;
    std::int64_t row_elements = 1;
    Shape cut{count};
    for (int i = 1; i < shape.rank(); ++i) {
      row_elements *= shape[i];
      cut.push_back(shape[i]);
    }
    view.shape = cut;
    view.data = data + static_cast<std::size_t>(begin * row_elements) * dtype_size(dtype);
    return view;
  }

  /// The same elements under another shape of equal size.
  TensorView reshaped(Shape other) const {
    FOVEA_DCHECK(other.num_elements() == num_elements(), "{} reshaped to {}", shape.to_string(),
                 other.to_string());
    return {dtype, other, data};
  }
};

}  // namespace fovea
