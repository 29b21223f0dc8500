#pragma once

#include <gtest/gtest.h>
#include <string>
#include <variant>
#include <vector>

#include "args.h"

namespace fovea::cli {

/// What the program says of arguments that it does not take.
inline std::string usage_error_of(const std::vector<std::string>& args) {
  const ParsedArgs parsed = parse_args(args);
  const auto* text = std::get_if<PrintAndExit>(&parsed);
  if (text == nullptr) return "accepted";
  EXPECT_EQ(text->exit_code, kExitUsage);
  EXPECT_EQ(text->out, "");
  return text->err;
}

}  // namespace fovea::cli
