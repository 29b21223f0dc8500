# Most of the time that a source takes to compile goes into reading the same headers. They are read once here and shared
# by every target that calls fovea_precompile(), and by the tests. The preset dev does without in the program's own sources, so
# that one which forgets an #include does not compile there.
option(FOVEA_PRECOMPILED_HEADERS "Read the headers that most of the program's sources include once" ON)

set(FOVEA_COMMON_HEADERS <algorithm> <array> <atomic> <chrono> <cmath> <condition_variable> <cstddef> <cstdint>
  <cstring> <deque> <filesystem> <fstream> <functional> <map> <memory> <mutex> <optional> <random> <set> <span> <sstream>
  <string> <string_view> <thread> <unordered_map> <utility> <variant> <vector> <fmt/format.h> <boost/json.hpp>)

# A target to share precompiled headers from: it compiles nothing else.
function(fovea_precompiled name)
  cmake_parse_arguments(ARG "" "" "HEADERS;LIBRARIES" ${ARGN})
  set(source ${CMAKE_BINARY_DIR}/${name}.cpp)
  file(WRITE ${source}.new "")
  file(COPY_FILE ${source}.new ${source} ONLY_IF_DIFFERENT)
  add_library(${name} OBJECT ${source})
  target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES} fovea_warnings Threads::Threads)
  target_precompile_headers(${name} PRIVATE ${ARG_HEADERS})
endfunction()

# Sources whose flags differ must be taken out with SKIP_PRECOMPILE_HEADERS.
function(fovea_precompile target)
  if(FOVEA_PRECOMPILED_HEADERS)
    target_precompile_headers(${target} REUSE_FROM fovea_precompiled_common)
  endif()
endfunction()

if(FOVEA_PRECOMPILED_HEADERS)
  fovea_precompiled(fovea_precompiled_common HEADERS ${FOVEA_COMMON_HEADERS}
                    LIBRARIES PkgConfig::FMT Boost::json)
endif()
