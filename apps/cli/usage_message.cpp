#include "usage_message.h"

#include <algorithm>
#include <fmt/format.h>
#include <string>
#include <vector>

namespace fovea::cli {
namespace {

// The command that was being parsed, and its words: "bench serve".
struct ParsedCommand {
  const CLI::App* app;
  std::string words;
};

ParsedCommand parsed_command(const CLI::App& app) {
  ParsedCommand command{&app, {}};
  for (auto chosen = app.get_subcommands(); !chosen.empty();
       chosen = command.app->get_subcommands()) {
    command.app = chosen.front();
    command.words += (command.words.empty() ? "" : " ") + command.app->get_name();
  }
  return command;
}

std::string not_expected(const ParsedCommand& command, const std::vector<std::string>& rest) {
  if (rest.front() == "--" && rest.size() > 1) {
    return fmt::format("'{}' is too much: behind -- come only PICTURE and texts", rest[1]);
  }
  const std::string& first = rest.front();
  if (!first.starts_with('-')) {
    // Two unquoted words are the commonest slip; a mistyped option is the other.
    return fmt::format("'{}' is too much (a text of several words needs quotes)", first);
  }
  return fmt::format("{} has no option {}{}", command.words, first.substr(0, first.find('=')),
                     first.starts_with("--") ? "" : " (a text that begins with - goes behind --)");
}

// The option that a message of CLI11 begins with or names, or null.
const CLI::Option* named_option(const CLI::App& app, const std::string& message) {
  const std::string words = " " + message + " ";
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = " " + option->get_name();
    if (words.find(name + ":") != std::string::npos || words.find(name + " ") != std::string::npos)
      return option;
  }
  return nullptr;
}

}  // namespace

std::string usage_message(const CLI::ParseError& error, const CLI::App& app) {
  std::string message = error.what();
  const ParsedCommand command = parsed_command(app);
  if (const std::vector<std::string> before = app.remaining(false); !before.empty()) {
    return fmt::format("a COMMAND comes first, not '{}'", before.front());
  }
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) return "a COMMAND is missing";
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    const std::vector<std::string> rest = command.app->remaining(false);
    return rest.empty() ? message : not_expected(command, rest);
  }
  const CLI::Option* option = named_option(*command.app, message);
  if (option == nullptr) return message;
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    const bool once = option->get_multi_option_policy() == CLI::MultiOptionPolicy::Throw;
    return once && option->count() > 1
               ? fmt::format("{} can be given once only", option->get_name())
               : fmt::format("{} needs a value", option->get_name());
  }
  if (dynamic_cast<const CLI::ConversionError*>(&error) != nullptr) {
    return fmt::format("{} takes no value", option->get_name());
  }
  return message;
}

}  // namespace fovea::cli
