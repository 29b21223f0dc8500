#pragma once

#include <optional>
#include <string>

#include "wire/fields.h"

namespace fovea::server {

/// A chat as one question about at most one picture.
struct Conversation {
  std::string question;
  std::optional<std::string> image;
};

/// Reads `messages`. What the system and earlier turns say stands before the last question, in the
/// form in which the model was trained to see questions and answers. The picture may be part of any
/// of the user's messages, and be repeated; the model sees it before all text. Mistakes are left in
/// `fields`.
Conversation read_messages(wire::FieldReader& fields);

}  // namespace fovea::server
