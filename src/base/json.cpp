#include "base/json.h"

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/try.h"

namespace fovea::json {

Result<value> parse(std::string_view text, std::string_view what, int max_depth) {
  boost::json::parse_options options;
  options.max_depth = static_cast<std::size_t>(max_depth);
  boost::json::stream_parser parser({}, options);
  boost::system::error_code failure;
  std::size_t used = 0;
  try {
    used = parser.write_some(text.data(), text.size(), failure);
    if (!failure && used == text.size()) parser.finish(failure);
    if (!failure && used < text.size()) failure = make_error_code(boost::json::error::extra_data);
    if (!failure) return parser.release();
  } catch (const std::exception& exception) {  // allocation failure inside the library
    return error(ErrorCode::kResourceExhausted, "{}: {}", what, exception.what());
  }
  return invalid_argument("{} is not valid JSON: {} near byte {}", what, failure.message(), used);
}

Result<value> parse_file(const std::filesystem::path& path, std::size_t max_bytes) {
  FOVEA_TRY(MappedFile file, MappedFile::open(path));
  const auto bytes = file.bytes();
  if (bytes.size() > max_bytes) {
    return invalid_argument("{} has {} bytes; at most {} are read", path.string(), bytes.size(),
                            max_bytes);
  }
  return parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

}  // namespace fovea::json
