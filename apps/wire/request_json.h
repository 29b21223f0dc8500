#pragma once

#include <boost/json/fwd.hpp>
#include <optional>
#include <string>
#include <variant>

#include "fovea/request.h"

#include "fields.h"

namespace fovea::wire {

enum class Skill { kCaption, kQuery, kDetect, kPoint };

/// A request of the Moondream HTTP protocol as it was sent, its fields checked.
struct SkillBody {
  Request request;                   ///< but for its picture
  std::optional<std::string> image;  ///< a data URI, bare base64 or a URL
  std::string model;                 ///< empty: whatever is loaded
  std::string adapter;               ///< "id@step" of the settings; empty: none
  bool stream = false;
};

/// Reads the body of a skill's route. Fields of `settings` are also taken from the top level, in
/// snake case and in camel case. Numbers get the range that fovea::Request documents.
std::variant<SkillBody, FieldError> parse_skill_body(Skill skill, const boost::json::object& body);

/// The fields that say how words are chosen, as `fields` finds them: temperature, top_p, top_k,
/// min_p, max_tokens, seed, stop, penalties, logit_bias. Mistakes are left in `fields`.
SamplingParams read_sampling(FieldReader& fields);

/// `spatial_refs`: points and boxes in fractions of the picture.
std::vector<SpatialRef> read_spatial_refs(FieldReader& fields);

/// The text of a picture field: a string, or an object with `url`.
std::optional<std::string> read_image(FieldReader& fields, FieldReader::Names names);

}  // namespace fovea::wire
