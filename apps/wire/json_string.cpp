#include "json_string.h"

#include <boost/json.hpp>

namespace fovea::wire {

std::string json_string(std::string_view text) {
  return boost::json::serialize(boost::json::string(text));
}

}  // namespace fovea::wire
