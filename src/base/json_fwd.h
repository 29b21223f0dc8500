#pragma once

// The JSON value by name only: headers that pass one through need not read the whole library.
#include <boost/json/fwd.hpp>

namespace fovea::json {
using boost::json::value;
}
