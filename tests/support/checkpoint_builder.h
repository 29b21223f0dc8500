#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace fovea::testing_support {

/// A safetensors file in the making: tensors by name, f32 unless raw bytes are given.
class CheckpointBuilder {
 public:
  struct Entry {
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::string bytes;
  };

  static std::int64_t elements(const std::vector<std::int64_t>& shape) {
    std::int64_t product = 1;
    for (const std::int64_t size : shape) product *= size;
    return product;
  }

  /// Small different values, so that mixed-up tensors show.
  CheckpointBuilder& add(const std::string& name, std::vector<std::int64_t> shape) {
    std::vector<float> values(static_cast<std::size_t>(elements(shape)));
    std::uint32_t state = 1;
    for (const char c : name) state = state * 31 + static_cast<unsigned char>(c);
    for (float& value : values) {
      state = state * 1664525 + 1013904223;
      value = static_cast<float>(state >> 20) / 4096.0f - 0.5f;
    }
    return add_values(name, std::move(shape), values);
  }
  CheckpointBuilder& add_values(const std::string& name, std::vector<std::int64_t> shape,
                                const std::vector<float>& values) {
    std::string bytes(values.size() * sizeof(float), '\0');
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return add_raw(name, "F32", std::move(shape), std::move(bytes));
  }
  CheckpointBuilder& add_raw(const std::string& name, std::string dtype,
                             std::vector<std::int64_t> shape, std::string bytes) {
    entries_[name] = {std::move(dtype), std::move(shape), std::move(bytes)};
    return *this;
  }
  CheckpointBuilder& add_linear(const std::string& name, std::int64_t rows, std::int64_t cols) {
    return add(name + ".weight", {rows, cols}).add(name + ".bias", {rows});
  }
  CheckpointBuilder& add_norm(const std::string& name, std::int64_t dim) {
    return add(name + ".weight", {dim}).add(name + ".bias", {dim});
  }
  CheckpointBuilder& remove(const std::string& name) {
    entries_.erase(name);
    return *this;
  }
  CheckpointBuilder& rename(const std::string& from, const std::string& to) {
    entries_[to] = entries_.at(from);
    entries_.erase(from);
    return *this;
  }
  const std::map<std::string, Entry>& entries() const { return entries_; }

  void write(const std::filesystem::path& path) const {
    std::string header = "{", data;
    for (const auto& [name, entry] : entries_) {
      std::string shape;
      for (const std::int64_t size : entry.shape)
        shape += (shape.empty() ? "" : ",") + std::to_string(size);
      header += (header.size() > 1 ? ",\"" : "\"") + name + "\":{\"dtype\":\"" + entry.dtype +
                "\",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(data.size()) +
                "," + std::to_string(data.size() + entry.bytes.size()) + "]}";
      data += entry.bytes;
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const std::uint64_t size = header.size();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&size), sizeof(size));
    file << header << data;
  }

 private:
  std::map<std::string, Entry> entries_;
};

/// Every tensor of a Moondream 2 with one block of each kind: text width 128 (2 heads of 64),
/// encoder width 72 (1 head), 10 x 10 patches of 4 pixels, current names with "model." before them.
inline CheckpointBuilder tiny_moondream2(std::int64_t text_dim = 128) {
  CheckpointBuilder builder;
  const std::int64_t d = text_dim, e = 72;
  builder.add_linear("model.vision.patch_emb", e, 48).add("model.vision.pos_emb", {1, 100, e});
  builder.add_norm("model.vision.blocks.0.ln1", e).add_norm("model.vision.blocks.0.ln2", e);
  builder.add_linear("model.vision.blocks.0.attn.qkv", 3 * e, e)
      .add_linear("model.vision.blocks.0.attn.proj", e, e);
  builder.add_linear("model.vision.blocks.0.mlp.fc1", 96, e)
      .add_linear("model.vision.blocks.0.mlp.fc2", e, 96);
  builder.add_norm("model.vision.post_ln", e);
  builder.add_linear("model.vision.proj_mlp.fc1", 64, 2 * e)
      .add_linear("model.vision.proj_mlp.fc2", d, 64);
  builder.add("model.text.wte", {51200, d});
  builder.add_norm("model.text.blocks.0.ln", d);
  builder.add_linear("model.text.blocks.0.attn.qkv", 3 * d, d)
      .add_linear("model.text.blocks.0.attn.proj", d, d);
  builder.add_linear("model.text.blocks.0.mlp.fc1", 256, d)
      .add_linear("model.text.blocks.0.mlp.fc2", d, 256);
  builder.add_norm("model.text.post_ln", d).add_linear("model.text.lm_head", 51200, d);
  builder.add_linear("model.region.coord_encoder", d, 32)
      .add_linear("model.region.size_encoder", d, 64);
  builder.add("model.region.coord_features", {1, 16}).add("model.region.size_features", {2, 32});
  builder.add_linear("model.region.coord_decoder.fc1", 48, d)
      .add_linear("model.region.coord_decoder.fc2", 1024, 48);
  builder.add_linear("model.region.size_decoder.fc1", 48, d)
      .add_linear("model.region.size_decoder.fc2", 2048, 48);
  return builder;
}

}  // namespace fovea::testing_support
