// LoRA adapters on the golden checkpoints: an adapter beside the weights is the adapter merged into
// the weights, whoever shares the pass.

#include <cstring>
#include <gtest/gtest.h>
#include <map>

#include "backend/registry.h"
#include "engine/kv_cache.h"
#include "golden/golden_case.h"
#include "model/adapter_slots.h"
#include "model/model.h"
#include "support/checkpoint_builder.h"
#include "support/must.h"
#include "support/scratch_folder.h"

namespace fovea {
namespace {

using golden::kData;
using golden::relative_error;
using testing_support::CheckpointBuilder;
using testing_support::must;

constexpr int kRank = 6;  // a multiple of md3's three experts per token
constexpr int kPageSize = 16;

/// Tensors by name, as values.
struct Values {
  std::vector<std::int64_t> shape;
  std::vector<float> data;
};
using Tensors = std::map<std::string, Values>;

std::filesystem::path write(const Tensors& tensors, const std::string& name) {
  CheckpointBuilder builder;
  for (const auto& [tensor, values] : tensors) {
    builder.add_values(tensor, values.shape, values.data);
  }
  const auto path = testing_support::scratch_folder() / ("adapter_" + name);
  builder.write(path);
  return path;
}

Tensors read(const std::filesystem::path& path) {
  const Checkpoint checkpoint = must(Checkpoint::open(path));
  Tensors tensors;
  for (const TensorEntry& entry : checkpoint.tensors()) {
    Values values;
    for (int i = 0; i < entry.shape.rank(); ++i) values.shape.push_back(entry.shape[i]);
    values.data = must(to_f32(entry));
    tensors[entry.name] = std::move(values);
  }
  return tensors;
}

ModelConfig config_of(const std::string& folder) {
  const Checkpoint checkpoint = must(Checkpoint::open(kData / folder));
  const json::value document = must(json::parse_file(kData / folder / "config.json", 1 << 20));
  return must(resolve_config(checkpoint, &document));
}

/// Small different values.
Values random_values(std::vector<std::int64_t> shape, const std::string& seed) {
  Values values{std::move(shape), {}};
  std::uint32_t state = 1;
  for (const char c : seed) state = state * 31 + static_cast<unsigned char>(c);
  values.data.resize(static_cast<std::size_t>(CheckpointBuilder::elements(values.shape)));
  for (float& value : values.data) {
    state = state * 1664525 + 1013904223;
    value = (static_cast<float>(state >> 8) / 16777216.0f - 0.5f) * 0.4f;
  }
  return values;
}

void add_pair(Tensors& adapter, const std::string& a, std::vector<std::int64_t> a_shape,
              const std::string& b, std::vector<std::int64_t> b_shape, const std::string& seed) {
  adapter[a] = random_values(std::move(a_shape), a + seed);
  adapter[b] = random_values(std::move(b_shape), b + seed);
}

// The layout of vikhyat/moondream.
Tensors make_variant(const TextConfig& text, const std::string& seed) {
  Tensors adapter;
  for (int layer = 0; layer < text.n_layers; ++layer) {
    const std::string block = "text.blocks." + std::to_string(layer) + ".";
    const auto add = [&](const std::string& name, int inputs, int outputs) {
      add_pair(adapter, block + name + ".A", {kRank, inputs}, block + name + ".B", {outputs, kRank},
               seed);
    };
    add("attn.qkv", text.dim, text.qkv_dim());
    add("attn.proj", text.dim, text.dim);
    add("mlp.fc1", text.dim, text.ff_dim);
    add("mlp.fc2", text.ff_dim, text.dim);
  }
  return adapter;
}

// The layout of kestrel.
Tensors make_finetune(const TextConfig& text, const std::string& seed) {
  Tensors adapter;
  const MoeConfig moe = text.moe.value_or(MoeConfig{0, text.n_layers, 1, 0});
  for (int layer = 0; layer < moe.start_layer; ++layer) {
    const std::string stem = "text_lora.dense." + std::to_string(layer) + ".";
    add_pair(adapter, stem + "up_a", {kRank, text.dim}, stem + "up_b", {text.ff_dim, kRank}, seed);
    add_pair(adapter, stem + "down_a", {kRank, text.ff_dim}, stem + "down_b", {text.dim, kRank},
             seed);
  }
  const int experts = moe.num_experts, inner = moe.expert_inner_dim;
  const int rank = kRank / moe.experts_per_token;
  for (int i = 0; i < text.n_layers - moe.start_layer; ++i) {
    const std::string stem = "text_lora.moe." + std::to_string(i) + ".";
    add_pair(adapter, stem + "up_a", {experts, rank, text.dim}, stem + "up_b",
             {experts, 2 * inner, rank}, seed);
    add_pair(adapter, stem + "down_a", {experts, rank, inner}, stem + "down_b",
             {experts, text.dim, rank}, seed);
  }
  return adapter;
}

// weight [.., outputs, inputs] += b a, matrix by matrix.
void merge(Values& weight, const Values& a, const Values& b) {
  const auto rank = static_cast<std::size_t>(a.shape[a.shape.size() - 2]);
  const auto inputs = static_cast<std::size_t>(a.shape.back());
  const auto outputs = static_cast<std::size_t>(b.shape[b.shape.size() - 2]);
  const std::size_t matrices = a.data.size() / (rank * inputs);
  ASSERT_EQ(weight.data.size(), matrices * outputs * inputs);
  for (std::size_t row = 0; row < matrices * outputs; ++row) {
    for (std::size_t i = 0; i < inputs; ++i) {
      double sum = 0;
      for (std::size_t j = 0; j < rank; ++j) {
        sum += double{b.data[row * rank + j]} *
               double{a.data[(row / outputs * rank + j) * inputs + i]};
      }
      weight.data[row * inputs + i] += static_cast<float>(sum);
    }
  }
}

// An update of proj that reads the norm is a part of the MLP, which reads it too: with 2 rank more
// inner units, fc1 grows by [a; -a] and fc2 by [b, -b], because gelu(z) - gelu(-z) = z.
void merge_into_mlp(Tensors& model, const std::string& block, const Values& a, const Values& b) {
  Values& fc1 = model.at(block + "mlp.fc1.weight");
  Values& bias = model.at(block + "mlp.fc1.bias");
  Values& fc2 = model.at(block + "mlp.fc2.weight");
  const auto rank = static_cast<std::size_t>(a.shape[0]);
  const auto dim = static_cast<std::size_t>(fc2.shape[0]);
  const auto inner = static_cast<std::size_t>(fc2.shape[1]);
  for (const float sign : {1.0f, -1.0f}) {
    for (const float value : a.data) fc1.data.push_back(sign * value);
  }
  bias.data.resize(inner + 2 * rank, 0.0f);
  std::vector<float> wider;
  for (std::size_t row = 0; row < dim; ++row) {
    wider.insert(wider.end(), fc2.data.begin() + static_cast<std::ptrdiff_t>(row * inner),
                 fc2.data.begin() + static_cast<std::ptrdiff_t>((row + 1) * inner));
    for (const float sign : {1.0f, -1.0f}) {
      for (std::size_t j = 0; j < rank; ++j) wider.push_back(sign * b.data[row * rank + j]);
    }
  }
  fc2.data = std::move(wider);
  fc1.shape[0] += 2 * kRank;
  bias.shape[0] += 2 * kRank;
  fc2.shape[1] += 2 * kRank;
}

/// A model with the memory of a pass.
struct Adapted {
  std::unique_ptr<Device> device = must(create_device("cpu", {.num_threads = 2}));
  std::unique_ptr<Stream> stream = must(device->make_stream());
  std::unique_ptr<const Model> model;
  std::unique_ptr<PagedKvCache> cache;
  Activations activations;

  Adapted(const std::filesystem::path& path, const ModelConfig& config) {
    ModelOptions options;
    options.storage = DType::kF32;
    options.max_context = config.text.max_context;
    options.page_size = kPageSize;
    model = must(Model::load(must(Checkpoint::open(path)), config, *device, options));
    cache = std::make_unique<PagedKvCache>(
        must(PagedKvCache::create(*device, config.text, DType::kF32, 8, kPageSize)));
    StepLimits limits;
    limits.max_crops_per_pass = 1;
    limits.max_crops = 1;
    limits.max_rows = 8 * kPageSize;
    limits.max_sequences = 8;
    activations = must(Activations::create(*device, config, DType::kF32, limits));
  }

  AdapterSlots slots(const std::vector<std::filesystem::path>& adapters) {
    AdapterSlots made = must(AdapterSlots::create(*device, model->config().text, DType::kF32,
                                                  {.num_slots = 3, .max_rank = kRank + 3}));
    for (std::size_t i = 0; i < adapters.size(); ++i) {
      const Adapter adapter = must(load_adapter(adapters[i], model->config(), DType::kF32));
      EXPECT_EQ(adapter.rank, kRank);
      EXPECT_TRUE(made.upload(*stream, static_cast<int>(i), adapter).ok());
    }
    return made;
  }

  // Logits of each sequence's last row; sequences of one page each, computed in one pass.
  std::vector<std::vector<float>> run(const std::vector<std::vector<std::int32_t>>& sequences,
                                      const AdapterSlots* adapters,
                                      const std::vector<std::int32_t>& adapter_slots) {
    std::vector<std::int32_t> ids, positions, slots, last_rows, lengths, pages;
    std::vector<std::int32_t> query_start{0};
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      for (std::size_t i = 0; i < sequences[s].size(); ++i) {
        ids.push_back(sequences[s][i]);
        positions.push_back(static_cast<std::int32_t>(i));
        slots.push_back(static_cast<std::int32_t>(s * kPageSize + i));
      }
      pages.push_back(static_cast<std::int32_t>(s));
      lengths.push_back(static_cast<std::int32_t>(sequences[s].size()));
      query_start.push_back(static_cast<std::int32_t>(ids.size()));
      last_rows.push_back(query_start.back() - 1);
    }
    const std::vector<std::int32_t> no_prefix(sequences.size(), 0);
    const auto view = [](std::vector<std::int32_t>& host) {
      return TensorView{DType::kI32,
                        {static_cast<std::int64_t>(host.size())},
                        reinterpret_cast<std::byte*>(host.data())};
    };
    const auto count = static_cast<std::int64_t>(sequences.size());
    model->text().forward(*stream,
                          {.token_ids = view(ids),
                           .positions = view(positions),
                           .slots = view(slots),
                           .last_rows = view(last_rows),
                           .embedded = {},
                           .attention = {query_start, lengths, no_prefix, pages, 1},
                           .adapters = adapters,
                           .adapter_slots = adapter_slots},
                          cache->layers(), activations);
    model->text().logits(*stream, activations.text.hidden.rows(count), activations);
    EXPECT_TRUE(stream->synchronize().ok());
    const auto vocab = static_cast<std::size_t>(model->config().text.vocab_size);
    const float* all = activations.text.logits.view().as<float>();
    std::vector<std::vector<float>> logits;
    for (std::size_t s = 0; s < sequences.size(); ++s)
      logits.emplace_back(all + s * vocab, all + (s + 1) * vocab);
    return logits;
  }
};

const std::vector<std::vector<std::int32_t>> kSequences = {
    {0, 1, 365, 304, 98, 2, 293, 426}, {0, 7}, {0, 421, 371, 394, 428, 3, 3}, {0}, {0, 5, 900}};

class GoldenAdapter : public testing::TestWithParam<const char*> {};

TEST_P(GoldenAdapter, IsThatAdapterMergedIntoTheWeights) {
  const std::string folder = GetParam();
  ModelConfig config = config_of(folder);
  const bool routed = config.text.moe.has_value();
  Adapted base(kData / folder, config);
  const Tensors adapter = routed ? make_finetune(config.text, "") : make_variant(config.text, "");
  const AdapterSlots slots = base.slots({write(adapter, folder + ".lora.safetensors")});
  const auto adapted = base.run({kSequences[0]}, &slots, {0});
  const auto plain = base.run({kSequences[0]}, nullptr, {});
  EXPECT_GT(relative_error(adapted[0], plain[0]), 1e-2) << "the adapter changes nothing";

  Tensors merged = read(kData / folder);
  for (int layer = 0; layer < config.text.n_layers; ++layer) {
    const std::string number = std::to_string(layer);
    const std::string block = "model.text.blocks." + number + ".";
    const auto merge_named = [&](const std::string& weight, const std::string& a,
                                 const std::string& b) {
      merge(merged.at(block + weight + ".weight"), adapter.at(a), adapter.at(b));
    };
    if (routed) {
      const int first = config.text.moe->start_layer;
      const std::string stem = layer < first
                                   ? "text_lora.dense." + number + "."
                                   : "text_lora.moe." + std::to_string(layer - first) + ".";
      merge_named("mlp.fc1", stem + "up_a", stem + "up_b");
      merge_named("mlp.fc2", stem + "down_a", stem + "down_b");
      continue;
    }
    const std::string stem = "text.blocks." + number + ".";
    for (const std::string name : {"attn.qkv", "mlp.fc1", "mlp.fc2"})
      merge_named(name, stem + name + ".A", stem + name + ".B");
    merge_into_mlp(merged, block, adapter.at(stem + "attn.proj.A"),
                   adapter.at(stem + "attn.proj.B"));
  }
  if (!routed) config.text.ff_dim += 2 * kRank;
  Adapted reference(write(merged, folder + ".merged.safetensors"), config);
  const auto wanted = reference.run({kSequences[0]}, nullptr, {});
  EXPECT_LE(relative_error(adapted[0], wanted[0]), 1e-5);
}

TEST_P(GoldenAdapter, AMixedPassGivesEachSequenceItsOwn) {
  const std::string folder = GetParam();
  const ModelConfig config = config_of(folder);
  Adapted base(kData / folder, config);
  const auto make = [&](const std::string& seed) {
    return write(
        config.text.moe ? make_finetune(config.text, seed) : make_variant(config.text, seed),
        folder + seed + ".lora.safetensors");
  };
  const AdapterSlots slots = base.slots({make("a"), make("b")});
  const std::vector<std::int32_t> mixed{1, -1, 0, 1, 0};
  const auto together = base.run(kSequences, &slots, mixed);
  for (std::size_t s = 0; s < kSequences.size(); ++s) {
    const auto alone = base.run({kSequences[s]}, &slots, {mixed[s]});
    EXPECT_LE(relative_error(together[s], alone[0]), 1e-5) << "sequence " << s;
  }
  // Among as many rows, but with other adapters beside them: to the bit. Routed experts run on as
  // many rows as choose them, which the neighbours' adapters change.
  if (config.text.moe) return;
  const auto others = base.run(kSequences, &slots, {1, 0, -1, 0, 0});
  EXPECT_EQ(together[0], others[0]);
  EXPECT_EQ(together[4], others[4]);
  EXPECT_NE(together[2], others[2]);
  const auto none = base.run(kSequences, nullptr, {});
  EXPECT_EQ(together[1], none[1]);
}

TEST_P(GoldenAdapter, EmptySlotsAndNoSlotsAreThePlainModel) {
  const std::string folder = GetParam();
  const ModelConfig config = config_of(folder);
  Adapted base(kData / folder, config);
  const auto path =
      write(config.text.moe ? make_finetune(config.text, "") : make_variant(config.text, ""),
            folder + ".cleared.safetensors");
  AdapterSlots slots = base.slots({path});
  const auto plain = base.run(kSequences, nullptr, {});
  EXPECT_EQ(base.run(kSequences, &slots, {}), plain);
  EXPECT_EQ(base.run(kSequences, &slots, {-1, -1, -1, -1, -1}), plain);
  EXPECT_EQ(base.run(kSequences, &slots, {1, 2, 1, 2, 1}), plain) << "slots never filled";
  slots.clear(0);
  EXPECT_EQ(base.run(kSequences, &slots, {0, 0, 0, 0, 0}), plain) << "a slot that was cleared";
}

INSTANTIATE_TEST_SUITE_P(All, GoldenAdapter, testing::Values("md2-mha", "md2-gqa", "md3"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

// Variants adapt the attention of a Moondream 3 too, before the tau scaling; their MLP pairs are
// left out where there are experts.
TEST(GoldenVariantOfMoondream3, AdaptsQkvBeforeTau) {
  ModelConfig config = config_of("md3");
  Adapted base(kData / "md3", config);
  Tensors adapter = make_variant(config.text, "");
  Tensors merged = read(kData / "md3");
  for (int layer = 0; layer < config.text.n_layers; ++layer) {
    const std::string stem = "text.blocks." + std::to_string(layer) + ".";
    for (const char* name : {"attn.proj.B", "mlp.fc1.B", "mlp.fc2.B"})
      std::ranges::fill(adapter.at(stem + name).data, 0.0f);
    if (config.text.is_moe_layer(layer)) {
      std::ranges::fill(adapter.at(stem + "mlp.fc1.B").data, 9.0f);
      std::ranges::fill(adapter.at(stem + "mlp.fc2.B").data, 9.0f);
    }
    merge(merged.at("model." + stem + "attn.qkv.weight"), adapter.at(stem + "attn.qkv.A"),
          adapter.at(stem + "attn.qkv.B"));
  }
  const AdapterSlots slots = base.slots({write(adapter, "md3.qkv.safetensors")});
  Adapted reference(write(merged, "md3.qkv.merged.safetensors"), config);
  const auto wanted = reference.run({kSequences[0]}, nullptr, {});
  EXPECT_LE(relative_error(base.run({kSequences[0]}, &slots, {0})[0], wanted[0]), 1e-5);
}

}  // namespace
}  // namespace fovea
