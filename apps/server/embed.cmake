# cmake -DINPUTS="FILE;FILE" -DOUTPUT=FILE -P embed.cmake: writes a source file that holds the files as page_files().
set(content_type_html "text/html; charset=utf-8")
set(content_type_css "text/css; charset=utf-8")
set(content_type_js "text/javascript; charset=utf-8")
set(content_type_svg "image/svg+xml")
set(content_type_png "image/png")

set(arrays "")
set(entries "")
set(number 0)
foreach(file IN LISTS INPUTS)
  get_filename_component(name ${file} NAME)
  string(REGEX REPLACE "^.*\\." "" ending ${name})
  if(NOT DEFINED content_type_${ending})
    message(FATAL_ERROR "${file}: no content type is known for .${ending}")
  endif()
  file(READ ${file} bytes HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(APPEND arrays "constexpr unsigned char kFile${number}[] = {${bytes}0};\n")
  string(APPEND entries "    {\"${name}\", \"${content_type_${ending}}\", text(kFile${number})},\n")
  math(EXPR number "${number} + 1")
endforeach()

file(WRITE ${OUTPUT} "#include \"page.h\"

#include <array>
#include <cstddef>

namespace fovea::server {
namespace {

${arrays}
// Each array ends in a zero that does not belong to the file: one cannot be empty.
template <std::size_t size>
std::string_view text(const unsigned char (&bytes)[size]) {
  return {reinterpret_cast<const char*>(bytes), size - 1};
}

const std::array<PageFile, ${number}> kFiles{{
${entries}}};

}  // namespace

std::span<const PageFile> page_files() { return kFiles; }

}  // namespace fovea::server
")
