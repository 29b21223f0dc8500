# cmake -DINPUT=FILE -DOUTPUT=FILE -P embed.cmake: writes a source file that holds INPUT as page_html().
file(READ ${INPUT} bytes HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${OUTPUT} "#include \"page.h\"

namespace fovea::server {
namespace {
constexpr unsigned char kPage[] = {${bytes}0};
}  // namespace

std::string_view page_html() {
  return {reinterpret_cast<const char*>(kPage), sizeof(kPage) - 1};
}

}  // namespace fovea::server
")
