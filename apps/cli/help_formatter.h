#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

namespace fovea::cli {

/// CLI11's help with the arguments as they are meant: args.cpp knows better than brackets which of
/// them are needed, and their type is always text.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option_usage(const CLI::Option* option) const override {
    return make_option_name(option, true);
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_positional() ? std::string() : CLI::Formatter::make_option_opts(option);
  }
  // Without the doubled empty lines between groups.
  std::string make_group(std::string group, bool is_positional,
                         std::vector<const CLI::Option*> options) const override {
    std::string text = CLI::Formatter::make_group(std::move(group), is_positional, options);
    return is_positional || text.find("--help") != std::string::npos ? text : text.substr(1);
  }
};

}  // namespace fovea::cli
