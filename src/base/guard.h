#pragma once

#include <exception>
#include <new>
#include <type_traits>
#include <utility>

#include "fovea/result.h"

#include "base/error.h"

namespace fovea {

/// What is said when memory is not there. Short enough for a string to hold without memory of its
/// own: it can be said at that very moment.
inline Error out_of_memory() { return Error{ErrorCode::kResourceExhausted, "out of memory"}; }

/// An error of a message, without the message if there is no memory for it.
inline Error say(ErrorCode code, const char* message) noexcept {
  try {
    return Error{code, message};
  } catch (...) {
    return Error{code, "out of memory"};
  }
}

/// The same error once more, in the same way.
inline Error copy_of(const Error& error) noexcept { return say(error.code, error.message.c_str()); }

/// The error that an exception stands for. Called while it is being handled. Never throws.
inline Error error_of_exception() noexcept {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::exception& exception) {
    try {
      return error(ErrorCode::kInternal, "{}", exception.what());
    } catch (...) {
      return out_of_memory();
    }
  } catch (...) {
    return Error{ErrorCode::kInternal, "exception"};
  }
}

/// Runs what may throw (memory that is not there, a library, a callback) and makes an error of it.
/// `body` returns a Result<T>, or nothing for a Status.
template <class T = void, class Body>
Result<T> guarded(Body&& body) noexcept {
  try {
    if constexpr (std::is_void_v<decltype(body())>) {
      body();
      return {};
    } else {
      return body();
    }
  } catch (...) {
    return error_of_exception();
  }
}

}  // namespace fovea
