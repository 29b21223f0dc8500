#pragma once

#include <cmath>
#include <cstdint>
#include <dnnl.hpp>
#include <string>

namespace fovea {

/// Attention of one crop in oneDNN, f32: products of all heads at once with a softmax between them.
/// Queries, keys and values of a head lie together from the start, which flatters it. A yardstick;
/// nothing but the benchmark links it.
class OneDnnAttention {
 public:
  OneDnnAttention(std::int64_t heads, std::int64_t tokens, std::int64_t head_dim)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using Tag = dnnl::memory::format_tag;
    const auto type = dnnl::memory::data_type::f32;
    const dnnl::memory::desc rows({heads, tokens, head_dim}, type, Tag::abc);
    const dnnl::memory::desc turned({heads, head_dim, tokens}, type, Tag::acb);
    const dnnl::memory::desc scores({heads, tokens, tokens}, type, Tag::abc);
    dnnl::primitive_attr scale;
    scale.set_output_scales(0, {1.0f / std::sqrt(static_cast<float>(head_dim))});
    try {
      const dnnl::matmul::primitive_desc score(dnnl::matmul::desc(rows, turned, scores), scale,
                                               engine_);
      const dnnl::softmax_forward::primitive_desc soften(
          dnnl::softmax_forward::desc(dnnl::prop_kind::forward_inference, scores, 2), engine_);
      const dnnl::matmul::primitive_desc sum(dnnl::matmul::desc(scores, rows, rows), engine_);
      for (const char* name : {score.impl_info_str(), soften.impl_info_str(), sum.impl_info_str()})
        if (std::string(name).starts_with("ref")) return;  // a plain loop is no yardstick
      score_ = dnnl::matmul(score);
      soften_ = dnnl::softmax_forward(soften);
      sum_ = dnnl::matmul(sum);
      q_ = filled(rows);
      k_ = filled(turned);
      v_ = filled(rows);
      scores_ = dnnl::memory(scores, engine_);
      out_ = dnnl::memory(rows, engine_);
      usable_ = true;
    } catch (const dnnl::error&) {
      usable_ = false;
    }
  }

  bool usable() const { return usable_; }

  void run() {
    score_.execute(stream_, {{DNNL_ARG_SRC, q_}, {DNNL_ARG_WEIGHTS, k_}, {DNNL_ARG_DST, scores_}});
    soften_.execute(stream_, {{DNNL_ARG_SRC, scores_}, {DNNL_ARG_DST, scores_}});
    sum_.execute(stream_, {{DNNL_ARG_SRC, scores_}, {DNNL_ARG_WEIGHTS, v_}, {DNNL_ARG_DST, out_}});
    stream_.wait();
  }

 private:
  // Numbers of the size that a softmax sees; what lies in new memory may be slow to compute with.
  dnnl::memory filled(const dnnl::memory::desc& desc) const {
    dnnl::memory memory(desc, engine_);
    auto* values = static_cast<float*>(memory.get_data_handle());
    std::uint32_t state = 1;
    for (std::size_t i = 0; i < desc.get_size() / sizeof(float); ++i) {
      state = state * 1664525u + 1013904223u;
      values[i] = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
    }
    return memory;
  }

  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul score_, sum_;
  dnnl::softmax_forward soften_;
  dnnl::memory q_, k_, v_, scores_, out_;
  bool usable_ = false;
};

}  // namespace fovea
