#pragma once

#include <boost/json/fwd.hpp>
#include <string>
#include <string_view>

namespace fovea::wire {

/// The text as a JSON string, quotes included. It must be UTF-8.
std::string json_string(std::string_view text);

enum class Charset {
  kUtf8,
  kAscii,  ///< everything else as \uXXXX: for readers that may split a character between packets
};

/// A value as one line of JSON. Doubles have as many digits as it takes to read the same one back,
/// and a fraction or an exponent, so that typed readers see a real number; NaN and infinity are
/// null.
std::string print(const boost::json::value& value, Charset charset = Charset::kUtf8);

/// JSON text with every character beyond ASCII escaped. Bytes that are no UTF-8 become \ufffd.
std::string escape_non_ascii(std::string_view json);

}  // namespace fovea::wire
