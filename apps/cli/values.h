#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "fovea/options.h"
#include "fovea/request.h"
#include "fovea/result.h"

namespace fovea::cli {

/// An error in how the program was called.
Error usage(std::string message);

/// The values that options take, from their spelling on a command line. Whole strings only: no
/// spaces, no trailing characters, no NaN or infinity. Errors are kInvalidArgument and say what
/// would have been right.
Result<double> parse_number(std::string_view text);
Result<std::uint64_t> parse_count(std::string_view text);
bool is_all_digits(std::string_view text);

/// How many objects may be asked for, and how many places a text may be about: as the skills have
/// it.
constexpr int kMaxObjects = 10'000;
constexpr std::size_t kMaxSpatialRefs = 64;

/// A number of bytes: "4096", or with a unit of 1024, 1024^2, ... bytes: "512K", "64M", "1.5G",
/// "2T"; "iB" or "B" may follow the unit.
Result<std::size_t> parse_size(std::string_view text);

/// "ID=VALUE": a token's id, and what is added to its logit, from -100 to 100.
Result<std::pair<std::int32_t, float>> parse_logit_bias(std::string_view text);

/// "X,Y" or "X1,Y1,X2,Y2", fractions within 0..1, a box with its corners in order.
Result<SpatialRef> parse_spatial_ref(std::string_view text);

/// "key=value" with a key of fovea::Compatibility.
Status apply_compatibility(std::string_view text, Compatibility& compatibility);

/// The keys, comma separated, for help and messages.
std::string compatibility_keys();

}  // namespace fovea::cli
