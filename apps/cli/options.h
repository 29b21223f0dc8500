#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fovea/request.h"
#include "fovea/result.h"

#include "args.h"
#include "values.h"

namespace fovea::cli {

/// Stores an option's value, or says what is wrong with it.
using Accept = std::function<Status(const std::string& text)>;

/// An option that takes one value and can be given once. `names` as CLI11 spells them
/// ("-m,--model"), `placeholder` as the help shows the value ("DIR").
CLI::Option* add_value(CLI::App& app, const std::string& names, const std::string& placeholder,
                       const std::string& help, Accept accept);
/// The same for an option that may be given several times: `accept` sees each value.
CLI::Option* add_repeatable(CLI::App& app, const std::string& names, const std::string& placeholder,
                            const std::string& help, Accept accept);
/// A whole number from `minimum` up to `maximum`.
CLI::Option* add_integer(CLI::App& app, const std::string& name, int minimum,
                         const std::string& help, std::function<void(int)> store,
                         int maximum = std::numeric_limits<int>::max());
/// A number of bytes, as parse_size() reads it.
CLI::Option* add_size(CLI::App& app, const std::string& name, const std::string& help,
                      std::function<void(std::size_t)> store);
/// A real number for which `fits` holds; `wanted` says in words which ones do.
CLI::Option* add_real(CLI::App& app, const std::string& name, const std::string& wanted,
                      const std::string& help, bool (*fits)(double),
                      std::function<void(float)> store);

/// One of several words, each of which stands for a value.
template <class T>
Accept one_of(std::vector<std::pair<std::string, T>> choices, T& target) {
  return [choices = std::move(choices), &target](const std::string& text) {
    std::string names;
    for (const auto& [name, value] : choices) {
      if (name == text) {
        target = value;
        return Status();
      }
      names += (names.empty() ? "" : ", ") + name;
    }
    return Status(usage("'" + text + "' is none of " + names));
  };
}

/// --model, --device and whatever else says which model runs where.
void add_model_options(CLI::App& app, ModelArgs& model);
/// --temperature and whatever else says how words are chosen.
void add_sampling_options(CLI::App& app, SamplingParams& sampling);
/// --stop, penalties and --logit-bias, for the skills that write text.
void add_word_options(CLI::App& app, SamplingParams& sampling);
/// Whether no more of them were given than a request may hold.
Status check_sampling_counts(const SamplingParams& sampling);
/// --kv-cache-size and whatever else counts where an engine stays for many requests.
void add_engine_options(CLI::App& app, EngineOptions& options);

}  // namespace fovea::cli
