# A compiler cache when one is installed: rebuilding a branch then takes seconds. What it is told about precompiled headers
# is that they may be cached: their own sources count, not the time in them.
find_program(FOVEA_CCACHE ccache)
if(FOVEA_CCACHE)
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${FOVEA_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${launcher})
endif()
