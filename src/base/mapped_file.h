#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "fovea/result.h"

namespace fovea {

/// A whole file, mapped read-only. Move-only; the bytes live as long as the object.
class MappedFile {
 public:
  /// Errors: kNotFound when there is no such file, kInvalidArgument for a folder, kIo otherwise. An
  /// empty file is an empty span.
  static Result<MappedFile> open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// Tells the kernel that the pages of `range` are not needed again soon (a packed copy exists):
  /// resident memory shrinks, the bytes stay readable.
  void release(std::span<const std::byte> range) const;

 private:
  MappedFile(const std::byte* data, std::size_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace fovea
