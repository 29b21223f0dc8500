#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/result.h"

#include "base/mapped_file.h"
#include "tensor/dtype.h"
#include "tensor/tensor_view.h"

namespace fovea {

/// One tensor of a checkpoint: row-major, little-endian, dense.
struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::span<const std::byte>
      bytes;  ///< shape.num_elements() * dtype_size(dtype) bytes, owned by the file
};

/// The longest header that is read; the format's own limit.
inline constexpr std::size_t kMaxSafetensorsHeaderBytes = 100'000'000;

/// Reads the header of a safetensors file whose whole contents are `file`; the entries point into
/// it and come in the order of their data. `what` names the file in errors. Every byte of data must
/// belong to exactly one tensor, as the format demands. Entries may be unaligned for their dtype.
/// Errors: kInvalidArgument for anything malformed (truncated, overlapping, doubled, sizes that do
/// not match), kUnsupported for a well-formed tensor of another dtype or of more than four
/// dimensions. They name the tensor. Source: https://github.com/huggingface/safetensors, "Format".
Result<std::vector<TensorEntry>> parse_safetensors(std::span<const std::byte> file,
                                                   std::string_view what);

/// A safetensors file, mapped. Tensors that are unaligned for their dtype (old writers did not pad
/// the header) are copied to aligned memory; all others point into the mapping.
class SafetensorsFile {
 public:
  /// Errors: those of MappedFile::open and parse_safetensors.
  static Result<SafetensorsFile> open(const std::filesystem::path& path);

  /// In the order of their data. Valid as long as this object, also after it was moved.
  const std::vector<TensorEntry>& tensors() const { return tensors_; }
  const MappedFile& file() const { return file_; }

  /// Gives the pages of `range` back to the kernel where they come from the mapping; see
  /// MappedFile::release.
  void release(std::span<const std::byte> range) const;

 private:
  explicit SafetensorsFile(MappedFile file) : file_(std::move(file)) {}

  MappedFile file_;
  std::vector<TensorEntry> tensors_;
  std::vector<std::unique_ptr<std::byte[]>> copies_;  // of unaligned tensors
};

}  // namespace fovea
