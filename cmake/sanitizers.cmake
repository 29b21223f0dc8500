# FOVEA_SANITIZE=address,undefined or thread instruments everything that is built.
if(FOVEA_SANITIZE)
  add_compile_options(-fsanitize=${FOVEA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  # Checks before every access, which double the time to compile: AddressSanitizer sees what most of them would.
  if(FOVEA_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize=null,alignment,vptr,object-size)
  endif()
  add_link_options(-fsanitize=${FOVEA_SANITIZE})
  # GCC 12 sees uninitialised values in instrumented std::function and std::variant where there are none.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-maybe-uninitialized)
  endif()
endif()
# Coverage feedback in what the fuzzers drive, not only in the harnesses.
if(FOVEA_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
