#include "conversation.h"

#include <boost/json.hpp>
#include <fmt/format.h>
#include <utility>
#include <vector>

#include "wire/request_json.h"

namespace fovea::server {
namespace {

namespace bj = boost::json;
using wire::FieldReader;

constexpr std::size_t kMaxMessages = 1024;

struct Turn {
  std::string role;
  std::string text;
};

/// Goes through the messages one by one.
class MessageReader {
 public:
  explicit MessageReader(FieldReader& fields) : fields_(fields) {}

  void read(const bj::value& value, std::size_t index) {
    where_ = fmt::format("messages[{}].", index);
    const bj::object* message = value.if_object();
    if (message == nullptr) return fail("", "invalid_value", "must be an object");
    FieldReader inner(*message, where_);
    Turn turn{inner.string({"role"}).value_or(""), {}};
    if (turn.role == "developer") turn.role = "system";
    if (turn.role != "system" && turn.role != "user" && turn.role != "assistant") {
      return fail("role", "invalid_value", "must be system, developer, user or assistant");
    }
    const bj::value* content = inner.find({"content"});
    if (inner.error()) return fields_.fail(*inner.error());
    if (content == nullptr) {
      if (turn.role != "assistant") return fail("content", "missing_field", "is missing");
    } else if (const bj::string* text = content->if_string()) {
      turn.text = std::string(*text);
    } else if (const bj::array* parts = content->if_array()) {
      for (std::size_t i = 0; i < parts->size(); ++i) read_part((*parts)[i], i, turn);
    } else {
      return fail("content", "invalid_value", "must be a string or a list of parts");
    }
    turns_.push_back(std::move(turn));
  }

  Conversation finish() {
    if (fields_.error()) return {};
    if (turns_.empty() || turns_.back().role != "user") {
      fields_.fail("messages", "invalid_value", "Field 'messages' must end with the user's");
      return {};
    }
    Conversation conversation{{}, std::move(image_)};
    bool after_answer = false;
    for (const Turn& turn : turns_) {
      std::string& question = conversation.question;
      if (turn.role == "assistant") {
        question += "\n\nAnswer: " + turn.text;
        after_answer = true;
        continue;
      }
      if (!question.empty()) question += after_answer ? "\n\nQuestion: " : "\n\n";
      after_answer = false;
      question += turn.text;
    }
    if (turns_.back().text.find_first_not_of(" \t\r\n") == std::string::npos) {
      fields_.fail("messages", "invalid_value", "the last of 'messages' holds no text");
    }
    return conversation;
  }

 private:
  void fail(const std::string& name, const std::string& code, const std::string& what) {
    std::string field = where_ + name;
    if (field.ends_with('.')) field.pop_back();
    fields_.fail(wire::FieldError{field, code, fmt::format("Field '{}' {}", field, what)});
  }

  void read_part(const bj::value& value, std::size_t index, Turn& turn) {
    const std::string name = fmt::format("content[{}]", index);
    const bj::object* part = value.if_object();
    if (part == nullptr) return fail(name, "invalid_value", "must be an object");
    FieldReader inner(*part, where_ + name + ".");
    const std::string type = inner.string({"type"}).value_or("");
    if (type == "text" || type == "input_text") {
      const std::string text = inner.string({"text"}).value_or("");
      if (!turn.text.empty() && !text.empty()) turn.text += '\n';
      turn.text += text;
    } else if (type == "image_url" || type == "input_image") {
      if (turn.role != "user")
        return fail(name, "invalid_value", "has a picture that is not the user's");
      keep_image(wire::read_image(inner, {"image_url"}), name);
      if (!inner.error() && !image_) fail(name + ".image_url", "missing_field", "is missing");
    } else {
      return fail(name + ".type", "unsupported_value", "must be text or image_url");
    }
    if (inner.error()) fields_.fail(*inner.error());
  }

  void keep_image(std::optional<std::string> image, const std::string& name) {
    if (!image) return;
    if (image_ && *image_ != *image) {
      return fail(name, "unsupported_value", "is a second picture; the model looks at one");
    }
    image_ = std::move(image);
  }

  FieldReader& fields_;
  std::string where_;
  std::vector<Turn> turns_;
  std::optional<std::string> image_;
};

}  // namespace

Conversation read_messages(FieldReader& fields) {
  const bj::array* messages = fields.array({"messages"});
  if (messages == nullptr || messages->empty()) {
    fields.fail("messages", "missing_field", "Field 'messages' is missing or empty");
    return {};
  }
  if (messages->size() > kMaxMessages) {
    fields.fail("messages", "invalid_value",
                fmt::format("Field 'messages' must hold at most {} messages", kMaxMessages));
    return {};
  }
  MessageReader reader(fields);
  for (std::size_t i = 0; i < messages->size() && !fields.error(); ++i) {
    reader.read((*messages)[i], i);
  }
  return reader.finish();
}

}  // namespace fovea::server
