// Writes a random checkpoint with the names and shapes of a published Moondream model, and a
// made-up tokenizer beside it: what benchmarks need where the real weights are not at hand. Answers
// are noise; times and memory are those of the real thing.

#include <CLI/CLI.hpp>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Shapes {
  int text_dim, text_ff, text_layers;
  int vision_dim, vision_ff, vision_layers;
  bool moondream3 = false;
  bool gpt2_vocabulary = false;
  int experts = 0;
  int first_moe_layer = 4;
  bool fp8_experts = false;
};

constexpr int kVocabulary = 51200;
constexpr int kPatches = 27 * 27;
constexpr int kPatchDim = 3 * 14 * 14;
constexpr int kProjectorInner = 8192;
constexpr int kRegionInner = 8192;
constexpr int kCoordinateBins = 1024;
constexpr int kSizeBins = 2048;
constexpr int kCoordinateFrequencies = 128;
constexpr int kSizeFrequencies = 256;
constexpr int kExpertInner = 1024;
constexpr int kHeadDim = 64;

enum class Kind { kBf16, kFp8, kF32Constant, kBf16Constant };

struct Tensor {
  std::string name;
  std::vector<std::int64_t> shape;
  Kind kind = Kind::kBf16;
  double value = 0;  // standard deviation of random values, or the constant

  std::int64_t count() const {
    std::int64_t product = 1;
    for (const std::int64_t size : shape) product *= size;
    return product;
  }
  int element_bytes() const { return kind == Kind::kFp8 ? 1 : kind == Kind::kF32Constant ? 4 : 2; }
  const char* dtype() const {
    return kind == Kind::kFp8 ? "F8_E4M3" : kind == Kind::kF32Constant ? "F32" : "BF16";
  }
};

std::uint16_t to_bf16(double value) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

double from_e4m3(int code) {
  const int exponent = (code >> 3) & 15;
  const int mantissa = code & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

constexpr bool is_e4m3_nan(int code) { return (code & 0x7f) == 0x7f; }

// Root mean square of all numbers that 8 bits can spell; random bytes are random numbers of that
// size.
double e4m3_rms() {
  double sum = 0;
  int count = 0;
  for (int code = 0; code < 256; ++code) {
    if (is_e4m3_nan(code)) continue;
    sum += from_e4m3(code) * from_e4m3(code);
    ++count;
  }
  return std::sqrt(sum / count);
}

// The checkpoint's tensors in order. Standard deviations of 1 / sqrt(inputs) keep activations near
// one, so that nothing overflows and no arithmetic is slowed down by denormal numbers.
class TensorList {
 public:
  explicit TensorList(const Shapes& shapes) : shapes_(shapes) {
    add_vision();
    add_text();
    add_region();
  }
  const std::vector<Tensor>& tensors() const { return tensors_; }

 private:
  void add(std::string name, std::vector<std::int64_t> shape, Kind kind, double value) {
    tensors_.push_back({std::move(name), std::move(shape), kind, value});
  }
  void linear(const std::string& name, std::int64_t out, std::int64_t in) {
    add(name + ".weight", {out, in}, Kind::kBf16, 1 / std::sqrt(static_cast<double>(in)));
    add(name + ".bias", {out}, Kind::kBf16, 0.02);
  }
  void norm(const std::string& name, std::int64_t dim) {
    add(name + ".weight", {dim}, Kind::kBf16Constant, 1);
    add(name + ".bias", {dim}, Kind::kBf16Constant, 0);
  }

  void add_vision() {
    const std::int64_t dim = shapes_.vision_dim;
    linear("model.vision.patch_emb", dim, kPatchDim);
    add("model.vision.pos_emb", {1, kPatches, dim}, Kind::kBf16, 0.02);
    for (int i = 0; i < shapes_.vision_layers; ++i) {
      const std::string block = fmt::format("model.vision.blocks.{}", i);
      norm(block + ".ln1", dim);
      linear(block + ".attn.qkv", 3 * dim, dim);
      linear(block + ".attn.proj", dim, dim);
      norm(block + ".ln2", dim);
      linear(block + ".mlp.fc1", shapes_.vision_ff, dim);
      linear(block + ".mlp.fc2", dim, shapes_.vision_ff);
    }
    norm("model.vision.post_ln", dim);
    linear("model.vision.proj_mlp.fc1", kProjectorInner, 2 * dim);
    linear("model.vision.proj_mlp.fc2", shapes_.text_dim, kProjectorInner);
  }

  void add_text() {
    const std::int64_t dim = shapes_.text_dim;
    add("model.text.wte", {kVocabulary, dim}, Kind::kBf16, 1);
    for (int i = 0; i < shapes_.text_layers; ++i) {
      const std::string block = fmt::format("model.text.blocks.{}", i);
      norm(block + ".ln", dim);
      linear(block + ".attn.qkv", 3 * dim, dim);
      linear(block + ".attn.proj", dim, dim);
      if (shapes_.moondream3) add_tau(block + ".attn.tau");
      if (shapes_.moondream3 && i >= shapes_.first_moe_layer) {
        add_experts(block);
      } else {
        linear(block + ".mlp.fc1", shapes_.text_ff, dim);
        linear(block + ".mlp.fc2", dim, shapes_.text_ff);
      }
    }
    norm("model.text.post_ln", dim);
    linear("model.text.lm_head", kVocabulary, dim);
  }

  void add_tau(const std::string& name) {
    const std::int64_t heads = shapes_.text_dim / kHeadDim;
    const std::int64_t inputs = std::int64_t{3} * shapes_.text_dim;
    const double deviation = 1 / std::sqrt(static_cast<double>(inputs));
    add(name + ".wq", {heads, inputs}, Kind::kBf16, deviation);
    add(name + ".wv", {heads, inputs}, Kind::kBf16, deviation);
    add(name + ".alpha", {heads}, Kind::kBf16, 0.1);
  }

  void add_experts(const std::string& block) {
    const std::int64_t dim = shapes_.text_dim;
    linear(block + ".mlp.router", shapes_.experts, dim);
    expert_weights(block + ".mlp.fc1.weight", block + ".moe_quant.up_scale", 2 * kExpertInner, dim);
    expert_weights(block + ".mlp.fc2.weight", block + ".moe_quant.down_scale", dim, kExpertInner);
  }

  void expert_weights(const std::string& name, const std::string& scale_name, std::int64_t out,
                      std::int64_t in) {
    const double deviation = 1 / std::sqrt(static_cast<double>(in));
    if (!shapes_.fp8_experts) {
      add(name, {shapes_.experts, out, in}, Kind::kBf16, deviation);
      return;
    }
    add(name, {shapes_.experts, out, in}, Kind::kFp8, 0);
    add(scale_name, {shapes_.experts, out}, Kind::kF32Constant, deviation / e4m3_rms());
  }

  void add_region() {
    const std::int64_t dim = shapes_.text_dim;
    linear("model.region.coord_encoder", dim, 2 * kCoordinateFrequencies);
    linear("model.region.size_encoder", dim, 2 * kSizeFrequencies);
    if (shapes_.moondream3) {
      norm("model.region.ln", dim);
      linear("model.region.coord_decoder", kCoordinateBins, dim);
      linear("model.region.size_decoder", kSizeBins, dim);
    } else {
      linear("model.region.coord_decoder.fc1", kRegionInner, dim);
      linear("model.region.coord_decoder.fc2", kCoordinateBins, kRegionInner);
      linear("model.region.size_decoder.fc1", kRegionInner, dim);
      linear("model.region.size_decoder.fc2", kSizeBins, kRegionInner);
    }
    add("model.region.coord_features", {1, kCoordinateFrequencies}, Kind::kBf16, 10);
    add("model.region.size_features", {2, kSizeFrequencies}, Kind::kBf16, 10);
  }

  Shapes shapes_;
  std::vector<Tensor> tensors_;
};

// The header of a safetensors file, padded so that the data begins at a multiple of 64 bytes.
std::string make_header(const std::vector<Tensor>& tensors) {
  std::string json = "{";
  std::int64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    const std::int64_t end = offset + tensor.count() * tensor.element_bytes();
    json += fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}},)",
                        tensor.name, tensor.dtype(), fmt::join(tensor.shape, ","), offset, end);
    offset = end;
  }
  json.back() = '}';
  json.resize((json.size() + 8 + 63) / 64 * 64 - 8, ' ');
  std::string header(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) header[i] = static_cast<char>(json.size() >> (8 * i) & 0xff);
  return header + json;
}

// Four 16-bit random numbers a step (Marsaglia's xorshift64*).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 2 + 1) {}
  std::uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1dU;
  }

 private:
  std::uint64_t state_;
};

class DataWriter {
 public:
  DataWriter(std::ofstream& file, std::uint64_t seed) : file_(file), random_(seed) {}

  void write(const Tensor& tensor) {
    if (tensor.kind == Kind::kF32Constant) {
      fill(tensor.count(), [value = static_cast<float>(tensor.value)] { return value; });
    } else if (tensor.kind == Kind::kBf16Constant) {
      fill(tensor.count(), [value = to_bf16(tensor.value)] { return value; });
    } else if (tensor.kind == Kind::kFp8) {
      write_fp8(tensor.count());
    } else {
      write_bf16(tensor.count(), tensor.value);
    }
  }

 private:
  template <class Make>
  void fill(std::int64_t count, Make make) {
    using Element = decltype(make());
    std::vector<Element> block(kBlock);
    for (std::int64_t left = count; left > 0; left -= kBlock) {
      for (Element& element : block) element = make();
      const std::int64_t used = std::min<std::int64_t>(left, kBlock);
      file_.write(reinterpret_cast<const char*>(block.data()),
                  used * static_cast<std::int64_t>(sizeof(Element)));
    }
  }

  // Evenly spread values of the wanted deviation, one for each 16-bit number, looked up.
  void write_bf16(std::int64_t count, double deviation) {
    std::vector<std::uint16_t> values(1 << 16);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double even = (static_cast<double>(i) + 0.5) / 32768 - 1;
      values[i] = to_bf16(even * deviation * std::sqrt(3.0));
    }
    std::uint64_t bits = 0;
    int left = 0;
    fill(count, [&] {
      if (left-- == 0) {
        bits = random_.next();
        left = 3;
      }
      const std::uint16_t value = values[bits & 0xffff];
      bits >>= 16;
      return value;
    });
  }

  void write_fp8(std::int64_t count) {
    std::uint64_t bits = 0;
    int left = 0;
    fill(count, [&] {
      if (left-- == 0) {
        bits = random_.next();
        left = 7;
      }
      const auto code = static_cast<std::uint8_t>(bits & 0xff);
      bits >>= 8;
      return is_e4m3_nan(code) ? std::uint8_t{0} : code;
    });
  }

  static constexpr std::int64_t kBlock = 1 << 20;
  std::ofstream& file_;
  Random random_;
};

// A byte-level BPE of made-up words with all its merges, as large as the real one. The word that
// the loader knows the id of stands at that id, the control tokens at theirs.
std::string make_tokenizer(bool gpt2) {
  const int known_id = gpt2 ? 24361 : 15381;
  const char* known_word = gpt2 ? "Question" : "query";
  const int end_of_text = gpt2 ? 50256 : 0;
  const auto is_control = [&](int id) { return gpt2 ? id == end_of_text : id <= 20; };
  const int size = gpt2 ? 50257 : kVocabulary;

  std::vector<std::string> words;
  for (int byte = 0, extra = 0; byte < 256; ++byte) {
    const bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code_point = plain ? byte : 256 + extra++;
    words.push_back(code_point < 0x80 ? std::string(1, static_cast<char>(code_point))
                                      : std::string{static_cast<char>(0xc0 | code_point >> 6),
                                                    static_cast<char>(0x80 | (code_point & 0x3f))});
  }
  std::string merges;
  const auto merge = [&](const std::string& left, const std::string& right) {
    words.push_back(left + right);
    merges += fmt::format(R"({}["{}","{}"])", merges.empty() ? "" : ",", left, right);
  };
  std::vector<std::string> pairs;
  for (char a = 'a'; a <= 'z'; ++a) {
    for (char b = 'a'; b <= 'z'; ++b) {
      merge(std::string(1, a), std::string(1, b));
      pairs.push_back(words.back());
    }
  }
  for (std::size_t i = 0; words.size() < kVocabulary; ++i) {
    merge(pairs[i / pairs.size()], pairs[i % pairs.size()]);
  }

  std::string vocabulary, added;
  std::size_t next_word = 0;
  for (int id = 0; id < size; ++id) {
    if (is_control(id)) {
      const std::string name =
          id == end_of_text ? "<|endoftext|>" : fmt::format("<|md_reserved_{}|>", id - 1);
      added += fmt::format(
          R"({}{{"id":{},"content":"{}","single_word":false,"lstrip":false,"rstrip":false,)"
          R"("normalized":false,"special":true}})",
          added.empty() ? "" : ",", id, name);
      continue;
    }
    std::string word = id == known_id ? known_word : words[next_word++];
    if (word == "\"" || word == "\\") word.insert(0, "\\");
    vocabulary += fmt::format(R"({}"{}":{})", vocabulary.empty() ? "" : ",", word, id);
  }
  // Merges into words that found no place in the vocabulary are left out.
  std::size_t kept = 0;
  std::size_t end = 0;
  for (; kept + 256 < next_word; ++kept) end = merges.find(']', end) + 1;
  merges.resize(end);
  return fmt::format(
      R"({{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{}],"normalizer":null,)"
      R"("pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}},)"
      R"("post_processor":null,"decoder":{{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,)"
      R"("use_regex":true}},"model":{{"type":"BPE","dropout":null,"unk_token":null,"vocab":{{{}}},"merges":[{}]}}}})",
      added, vocabulary, merges);
}

bool write_checkpoint(const fs::path& folder, const Shapes& shapes, std::uint64_t seed) {
  fs::create_directories(folder);
  std::ofstream(folder / "tokenizer.json") << make_tokenizer(shapes.gpt2_vocabulary);
  std::ofstream file(folder / "model.safetensors", std::ios::binary);
  const TensorList list(shapes);
  file << make_header(list.tensors());
  DataWriter writer(file, seed);
  for (const Tensor& tensor : list.tensors()) writer.write(tensor);
  return file.flush().good();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Writes a random checkpoint with the names and shapes of a Moondream model.");
  std::string folder, model = "2b";
  int text_layers = 0, vision_layers = 0, experts = 0;
  std::uint64_t seed = 0;
  bool fp8 = false;
  app.add_option("FOLDER", folder, "Where to write model.safetensors and tokenizer.json")
      ->required();
  app.add_option("--model", model, "Shapes of Moondream 2 (2b), 0.5b or 3 preview (3)")
      ->check(CLI::IsMember({"2b", "0.5b", "3"}));
  app.add_option("--text-layers", text_layers, "Fewer than the model has")
      ->check(CLI::Range(1, 24));
  app.add_option("--vision-layers", vision_layers, "Fewer than 27")->check(CLI::Range(1, 27));
  app.add_option("--experts", experts, "Of a layer of Moondream 3; 64 when not given")
      ->check(CLI::Range(8, 64));
  app.add_flag("--fp8", fp8, "Experts in 8 bits with a scale for each row");
  app.add_option("--seed", seed, "Equal seeds write equal files");
  CLI11_PARSE(app, argc, argv);

  Shapes shapes = model == "0.5b" ? Shapes{1024, 4096, 24, 720, 2690, 27}
                                  : Shapes{2048, 8192, 24, 1152, 4304, 27};
  shapes.moondream3 = model == "3";
  shapes.gpt2_vocabulary = model == "0.5b";
  shapes.experts = experts > 0 ? experts : 64;
  shapes.fp8_experts = fp8;
  if (text_layers > 0) shapes.text_layers = text_layers;
  if (vision_layers > 0) shapes.vision_layers = vision_layers;
  if (!write_checkpoint(folder, shapes, seed)) {
    std::cerr << "make_checkpoint: cannot write " << folder << '\n';
    return 1;
  }
  return 0;
}
