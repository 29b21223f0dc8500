#pragma once

namespace fovea::testing_support {

/// Whether a sanitizer watches, so that everything takes many times as long. GCC and clang tell it
/// in ways of their own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kInstrumented = true;
#elif defined(__has_feature)
inline constexpr bool kInstrumented =
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool kInstrumented = false;
#endif

}  // namespace fovea::testing_support
