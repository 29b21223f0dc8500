#pragma once

#include <span>
#include <string_view>

namespace fovea::server {

/// A file of the page.
struct PageFile {
  std::string_view name;  ///< without a folder
  std::string_view content_type;
  std::string_view bytes;
};

/// The page's files (page/ and the sample picture), put into the program when it is built.
std::span<const PageFile> page_files();

}  // namespace fovea::server
