# A compiler cache when one is installed: rebuilding a branch then takes seconds.
find_program(FOVEA_CCACHE ccache)
if(FOVEA_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${FOVEA_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${FOVEA_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${FOVEA_CCACHE})
endif()
