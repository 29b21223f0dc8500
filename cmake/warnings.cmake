# fovea_warnings: linked by every target of ours, never by third-party code.
add_library(fovea_warnings INTERFACE)
target_compile_options(fovea_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wno-sign-conversion -Wshadow -Wnon-virtual-dtor -Wold-style-cast)
# Where it sees many sources at once, GCC 12 takes inlined library code for copies that overlap or overflow.
if(CMAKE_UNITY_BUILD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(fovea_warnings INTERFACE -Wno-restrict -Wno-stringop-overflow -Wno-array-bounds)
endif()
# Members that a designated initializer leaves out have their defaults; and what the library of GCC 12 uses of its own
# deprecated functions is not ours. GCC says nothing about either.
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 19)
  target_compile_options(fovea_warnings INTERFACE -Wno-missing-designated-field-initializers -Wno-deprecated-declarations)
endif()
if(FOVEA_WERROR)
  target_compile_options(fovea_warnings INTERFACE -Werror)
endif()
