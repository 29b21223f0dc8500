#pragma once

// The JSON value by name only: headers that pass one through need not read the whole library.
namespace boost::json {
class value;
}

namespace fovea::json {
using boost::json::value;
}
