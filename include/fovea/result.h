#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace fovea {

/// What kind of thing went wrong. Applications map it to an exit code or an HTTP status.
enum class ErrorCode {
  kInvalidArgument,     ///< The caller's input is wrong: a value, a picture, a prompt, an option.
  kNotFound,            ///< A file, a tensor, an adapter or a device that was named does not exist.
  kFailedPrecondition,  ///< Two things that were given do not fit: a tokenizer and a model, say.
  kResourceExhausted,   ///< A limit was met: bytes, pixels, positions, memory, queue places.
  kUnsupported,         ///< Well formed, but this build, model or device cannot do it.
  kIo,                  ///< Reading or writing failed.
  kCancelled,           ///< The caller asked to stop.
  kOverloaded,          ///< Too many requests are waiting; the message says when to try again.
  kDeadlineExceeded,    ///< The request's deadline passed, or could not be met any more.
  kDeviceLost,          ///< The device failed; what was in flight is gone.
  kInternal,            ///< Our bug, reported instead of crashing.
};

/// Stable snake_case name of a code, for logs and JSON.
constexpr const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kFailedPrecondition:
      return "failed_precondition";
    case ErrorCode::kResourceExhausted:
      return "resource_exhausted";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kOverloaded:
      return "overloaded";
    case ErrorCode::kDeadlineExceeded:
      return "deadline_exceeded";
    case ErrorCode::kDeviceLost:
      return "device_lost";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

/// A failure that a person can act on: the message names the thing and the limit.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};

/// A value or an Error. Never throws; asking for the part that is not there is a programming error.
template <class T>
class [[nodiscard]] Result {
 public:
  // NOLINTBEGIN(google-explicit-constructor): what a function returns is a Result by itself
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  // NOLINTEND(google-explicit-constructor)

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & { return *std::get_if<0>(&state_); }
  const T& value() const& { return *std::get_if<0>(&state_); }
  T&& value() && { return std::move(*std::get_if<0>(&state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return std::get_if<0>(&state_); }
  const T* operator->() const { return std::get_if<0>(&state_); }

  const Error& error() const& { return *std::get_if<1>(&state_); }
  Error&& error() && { return std::move(*std::get_if<1>(&state_)); }

 private:
  std::variant<T, Error> state_;
};

/// Success without a value, or an Error.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const& { return *error_; }
  Error&& error() && { return std::move(*error_); }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace fovea
