#pragma once

#include <cstddef>
#include <cstdint>
#include <dnnl.hpp>
#include <unordered_map>
#include <vector>

namespace fovea {

/// The same product in oneDNN, with the weight in the layout it likes best: y = x . w^T, everything
/// in bf16 or in f32. A yardstick; nothing but the benchmark links it.
class OneDnnProduct {
 public:
  OneDnnProduct(std::int64_t m, std::int64_t n, std::int64_t k, bool bf16, std::size_t copies)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using Tag = dnnl::memory::format_tag;
    const auto type = bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
    const dnnl::memory::desc x({m, k}, type, Tag::ab);
    const dnnl::memory::desc any({k, n}, type, Tag::any);
    const dnnl::memory::desc plain({k, n}, type, Tag::ba);
    const dnnl::memory::desc y({m, n}, type, Tag::ab);
    try {
      const dnnl::matmul::primitive_desc chosen(dnnl::matmul::desc(x, any, y), engine_);
      // Without instructions for the type there is only a reference loop, no yardstick.
      if (std::string(chosen.impl_info_str()).starts_with("ref")) return;
      matmul_ = dnnl::matmul(chosen);
      x_ = dnnl::memory(x, engine_);
      y_ = dnnl::memory(y, engine_);
      for (std::size_t i = 0; i < copies; ++i) {
        dnnl::memory source(plain, engine_);
        dnnl::memory packed(chosen.weights_desc(), engine_);
        dnnl::reorder(source, packed).execute(stream_, source, packed);
        stream_.wait();
        weights_.push_back(packed);
      }
      usable_ = true;
    } catch (const dnnl::error&) {
      usable_ = false;
    }
  }

  bool usable() const { return usable_; }

  void run(std::size_t copy) {
    matmul_.execute(stream_,
                    {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, weights_[copy]}, {DNNL_ARG_DST, y_}});
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  dnnl::memory x_, y_;
  std::vector<dnnl::memory> weights_;
  bool usable_ = false;
};

}  // namespace fovea
