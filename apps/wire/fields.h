#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::wire {

/// What is wrong with a request, in the terms of its sender.
struct FieldError {
  std::string param;    ///< the field; empty when it is none in particular
  std::string code;     ///< "missing_field", "invalid_value", ...
  std::string message;  ///< names the field, and what would have been right
};

/// Reads the fields of a JSON object. Unknown fields are ignored, null counts as absent. The first
/// mistake is kept, so that a caller reads all it wants and asks once. One thread.
class FieldReader {
 public:
  using Names = std::initializer_list<std::string_view>;

  /// `prefix` stands before the names in errors ("settings."). The object outlives the reader.
  explicit FieldReader(const boost::json::object& object, std::string prefix = {});

  /// Fields are looked for in the object in field `name` first ("settings"), then at the top.
  void look_in(std::string_view name);

  /// The value under the first of the names that is there; null when none is.
  const boost::json::value* find(Names names);

  std::optional<std::string> string(Names names);
  std::optional<bool> boolean(Names names);
  /// A finite number for which `fits`; `wanted` says in words which ones do.
  std::optional<double> number(Names names, std::string_view wanted, bool (*fits)(double));
  /// A whole number in [minimum, maximum].
  std::optional<std::int64_t> integer(Names names, std::int64_t minimum, std::int64_t maximum);
  /// A list of strings, or one string alone.
  std::vector<std::string> strings(Names names);
  const boost::json::object* object(Names names);
  const boost::json::array* array(Names names);

  /// A string that must be there and hold more than blanks, which are cut off at both ends.
  std::string required_text(Names names);

  /// Keeps the mistake unless there is one already.
  void fail(std::string_view name, std::string code, std::string message);
  void fail(FieldError error);
  const std::optional<FieldError>& error() const { return error_; }

 private:
  struct Found {
    const boost::json::value* value = nullptr;
    std::string name;  // as errors call it
  };
  Found look_up(Names names) const;
  void wrong_type(const Found& found, std::string_view wanted);

  const boost::json::object& top_;
  std::string prefix_;
  const boost::json::object* nested_ = nullptr;
  std::string nested_name_;
  std::optional<FieldError> error_;
};

}  // namespace fovea::wire
