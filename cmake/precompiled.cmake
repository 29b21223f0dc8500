# Most of the time that a source takes to compile goes into reading the same headers. In the release build they are read once and
# shared by every target that calls fovea_precompile(), and sources with the same heavy templates are compiled as one. The
# other builds do without, so that a source which forgets an #include does not compile there.
option(FOVEA_PRECOMPILED_HEADERS "Read the headers that most of the program's sources include once" OFF)

set(FOVEA_COMMON_HEADERS <algorithm> <array> <atomic> <chrono> <cmath> <condition_variable> <cstddef> <cstdint>
  <cstring> <deque> <filesystem> <fstream> <functional> <map> <memory> <mutex> <optional> <random> <set> <span> <sstream>
  <string> <string_view> <thread> <unordered_map> <utility> <variant> <vector> <fmt/format.h> <boost/json.hpp>)

# Sources whose flags differ must be taken out with SKIP_PRECOMPILE_HEADERS.
function(fovea_precompile target)
  if(FOVEA_PRECOMPILED_HEADERS)
    target_precompile_headers(${target} REUSE_FROM fovea_precompiled_common)
  endif()
endfunction()

# fovea_compile_as_one(<target> <name> <sources...>)
function(fovea_compile_as_one target name)
  if(FOVEA_PRECOMPILED_HEADERS)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
    set_source_files_properties(${ARGN} PROPERTIES UNITY_GROUP ${name})
  endif()
endfunction()

# The target that the headers come from: it compiles nothing else.
if(FOVEA_PRECOMPILED_HEADERS)
  set(source ${CMAKE_BINARY_DIR}/fovea_precompiled_common.cpp)
  file(WRITE ${source}.new "")
  file(COPY_FILE ${source}.new ${source} ONLY_IF_DIFFERENT)
  add_library(fovea_precompiled_common OBJECT ${source})
  target_link_libraries(fovea_precompiled_common PRIVATE PkgConfig::FMT Boost::json fovea_warnings Threads::Threads)
  target_precompile_headers(fovea_precompiled_common PRIVATE ${FOVEA_COMMON_HEADERS})
endif()
