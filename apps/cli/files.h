#pragma once

#include <cstddef>
#include <filesystem>
#include <istream>
#include <span>
#include <string>
#include <vector>

#include "fovea/result.h"

namespace fovea::cli {

/// An error about a file that is there and cannot be what it was named as: kFailedPrecondition.
Error refused(std::string message);

/// The bytes of a file. One that is larger than max_bytes is refused before it is read.
Result<std::vector<std::byte>> read_file(const std::filesystem::path& path, std::size_t max_bytes);

/// The bytes of a stream up to its end; reading stops as soon as there are more than max_bytes.
Result<std::vector<std::byte>> read_stream(std::istream& in, std::size_t max_bytes);

/// The JSON schema that an option names: the value itself when it begins with a brace, which the
/// name of a file hardly does; else what is in the file, 1 MiB at most.
Result<std::string> read_schema(const std::string& given);

/// Whether write_file could work, as far as can be told without writing: worth asking before a long
/// computation.
Status check_writable(const std::filesystem::path& path);

/// Writes a file whole or not at all: the bytes go to a neighbour that then takes the name. An
/// interrupt meanwhile waits; whatever fails, no part of the file stays behind and an older one of
/// that name is untouched.
Status write_file(const std::filesystem::path& path, std::span<const std::byte> bytes);

/// The same for a program that handles interrupts itself: what signals do is left alone, so that
/// several threads may write, each another file.
Status replace_file(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace fovea::cli
