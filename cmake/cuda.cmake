# The compiler and the headers of the CUDA toolkit. Nothing of it is needed to start the program: the runtime is linked
# statically, the driver and cuBLASLt are looked for when a device is asked for.
set(FOVEA_CUDA_ARCHITECTURES "80-real;90a-real;120" CACHE STRING
    "What to compile for: Ampere, Hopper, Blackwell, and later devices from the last one's intermediate code")
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80)  # for the compiler's own check
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
find_package(CUDAToolkit 12.8 REQUIRED)
