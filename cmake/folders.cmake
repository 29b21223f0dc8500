# One CMake target per source folder. A folder's headers are reached only through its target: each target
# exports a directory that holds a single link named like the folder, so `#include "model/config.h"` compiles
# in exactly those targets that name `model` among their dependencies.

function(fovea_export_headers target scope folder source_dir)
  set(root ${CMAKE_BINARY_DIR}/headers/${target})
  file(MAKE_DIRECTORY ${root})
  get_filename_component(parent ${root}/${folder} DIRECTORY)
  file(MAKE_DIRECTORY ${parent})
  file(CREATE_LINK ${source_dir} ${root}/${folder} SYMBOLIC)
  target_include_directories(${target} ${scope} ${root})
endfunction()

# fovea_folder(<name> SOURCES ... [MAY_INCLUDE targets...] [PRIVATE_LIBRARIES third-party targets...])
function(fovea_folder name)
  cmake_parse_arguments(ARG "" "" "SOURCES;MAY_INCLUDE;PRIVATE_LIBRARIES" ${ARGN})
  add_library(fovea_${name} STATIC ${ARG_SOURCES})
  fovea_export_headers(fovea_${name} PUBLIC ${name} ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(fovea_${name} PUBLIC ${ARG_MAY_INCLUDE}
                        PRIVATE fovea_warnings ${ARG_PRIVATE_LIBRARIES} Threads::Threads)
  # Instrumented builds optimise what computes, and leave tests and the program around it as they are.
  if(FOVEA_SANITIZE)
    target_compile_options(fovea_${name} PRIVATE -O1)
  endif()
endfunction()
