#include "io/safetensors.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "base/math.h"
#include "base/try.h"
#include "io/json_keys.h"

namespace fovea {
namespace {

constexpr std::size_t kLengthBytes = 8;  // the header's length, unsigned little-endian

std::optional<DType> dtype_of(std::string_view name) {
  if (name == "F32") return DType::kF32;
  if (name == "BF16") return DType::kBf16;
  if (name == "F16") return DType::kF16;
  if (name == "F8_E4M3") return DType::kF8E4M3;
  if (name == "I32") return DType::kI32;
  if (name == "U8") return DType::kU8;
  return std::nullopt;
}

std::optional<std::uint64_t> as_unsigned(const json::value& value) {
  if (value.is_uint64()) return value.get_uint64();
  if (value.is_int64() && value.get_int64() >= 0)
    return static_cast<std::uint64_t>(value.get_int64());
  return std::nullopt;
}

// What parse_entry needs to say where a mistake is.
struct Place {
  std::string_view file;
  std::string_view tensor;
};

Result<Shape> parse_shape(const json::value* value, Place place) {
  if (value == nullptr || !value->is_array()) {
    return invalid_argument("{}: tensor \"{}\" has no shape array", place.file, place.tensor);
  }
  const json::array& sizes = value->get_array();
  if (sizes.size() > static_cast<std::size_t>(Shape::kMaxRank)) {
    return error(ErrorCode::kUnsupported,
                 "{}: tensor \"{}\" has {} dimensions; at most {} are supported", place.file,
                 place.tensor, sizes.size(), Shape::kMaxRank);
  }
  Shape shape;
  for (const json::value& size : sizes) {
    const auto number = as_unsigned(size);
    if (!number || *number > static_cast<std::uint64_t>(INT64_MAX)) {
      return invalid_argument("{}: tensor \"{}\" has the shape {}; wanted non-negative integers",
                              place.file, place.tensor, boost::json::serialize(sizes));
    }
    shape.push_back(static_cast<std::int64_t>(*number));
  }
  return shape;
}

// The bytes that a tensor must have, or nothing when no machine could hold it. Every partial
// product is checked, so that Shape::num_elements cannot overflow later either.
std::optional<std::size_t> tensor_bytes(const Shape& shape, DType dtype) {
  std::size_t bytes = dtype_size(dtype);
  for (int dim = 0; dim < shape.rank(); ++dim) {
    const auto product = checked_mul(bytes, static_cast<std::size_t>(shape[dim]));
    if (!product || *product > static_cast<std::size_t>(INT64_MAX)) return std::nullopt;
    bytes = *product;
  }
  return bytes;
}

Result<std::span<const std::byte>> parse_offsets(const json::value* value,
                                                 std::span<const std::byte> data, Place place) {
  const json::array* pair = value != nullptr ? value->if_array() : nullptr;
  std::optional<std::uint64_t> begin;
  std::optional<std::uint64_t> end;
  if (pair != nullptr && pair->size() == 2) {
    begin = as_unsigned(pair->at(0));
    end = as_unsigned(pair->at(1));
  }
  if (!begin || !end || *begin > *end) {
    return invalid_argument("{}: tensor \"{}\" has no data_offsets [begin, end] with begin <= end",
                            place.file, place.tensor);
  }
  if (*end > data.size()) {
    return invalid_argument(
        "{}: tensor \"{}\" ends at data byte {}, but the file has only {}; is it truncated?",
        place.file, place.tensor, *end, data.size());
  }
  return data.subspan(*begin, *end - *begin);
}

Result<TensorEntry> parse_entry(const json::value& value, std::span<const std::byte> data,
                                Place place) {
  const json::object* object = value.if_object();
  if (object == nullptr) {
    return invalid_argument("{}: tensor \"{}\" is not described by an object", place.file,
                            place.tensor);
  }
  const json::value* dtype_name_value = object->if_contains("dtype");
  if (dtype_name_value == nullptr || !dtype_name_value->is_string()) {
    return invalid_argument("{}: tensor \"{}\" has no dtype", place.file, place.tensor);
  }
  const std::string_view dtype_text = dtype_name_value->get_string();
  const auto dtype = dtype_of(dtype_text);
  if (!dtype) {
    return error(
        ErrorCode::kUnsupported,
        "{}: tensor \"{}\" has dtype {}; supported are F32, BF16, F16, F8_E4M3, I32 and U8",
        place.file, place.tensor, dtype_text);
  }
  FOVEA_TRY(const Shape shape, parse_shape(object->if_contains("shape"), place));
  FOVEA_TRY(const auto bytes, parse_offsets(object->if_contains("data_offsets"), data, place));
  const auto wanted = tensor_bytes(shape, *dtype);
  if (!wanted) {
    return invalid_argument("{}: tensor \"{}\" has the impossible shape {}", place.file,
                            place.tensor, shape.to_string());
  }
  if (bytes.size() != *wanted) {
    return invalid_argument("{}: tensor \"{}\" has {} bytes of data; {} of shape {} wants {}",
                            place.file, place.tensor, bytes.size(), dtype_text, shape.to_string(),
                            *wanted);
  }
  return TensorEntry{std::string(place.tensor), *dtype, shape, bytes};
}

// The file begins with something else: say what, where it is known.
Error not_safetensors(std::span<const std::byte> file, std::string_view what,
                      std::uint64_t length) {
  const std::string_view head(reinterpret_cast<const char*>(file.data()),
                              std::min<std::size_t>(file.size(), 4));
  if (head == "PK\x03\x04" || head.substr(0, 1) == "\x80") {
    return error(ErrorCode::kUnsupported,
                 "{} is a PyTorch pickle; convert it to safetensors (an adapter with "
                 "tools/convert_adapter.py)",
                 what);
  }
  if (head == "vers") {
    return error(ErrorCode::kUnsupported, "{} is a Git LFS pointer; fetch the real file", what);
  }
  if (length > kMaxSafetensorsHeaderBytes) {
    return invalid_argument(
        "{} is not a safetensors file: its header would have {} bytes; at most {} are read", what,
        length, kMaxSafetensorsHeaderBytes);
  }
  return invalid_argument("{} is truncated: its header has {} bytes, the file only {}", what,
                          length, file.size());
}

// `tensors` is sorted by where data begins. Every byte must have exactly one owner.
Status check_coverage(const std::vector<TensorEntry>& tensors, std::span<const std::byte> data,
                      std::string_view what) {
  std::size_t covered = 0;
  const TensorEntry* previous = nullptr;
  for (const TensorEntry& tensor : tensors) {
    const auto begin = static_cast<std::size_t>(tensor.bytes.data() - data.data());
    if (begin < covered) {
      return invalid_argument(
          "{}: tensor \"{}\" begins at data byte {}, inside \"{}\", which ends at {}", what,
          tensor.name, begin, previous->name, covered);
    }
    if (begin > covered) {
      return invalid_argument(
          "{}: tensor \"{}\" begins at data byte {}; wanted {}: no tensor owns the gap", what,
          tensor.name, begin, covered);
    }
    covered += tensor.bytes.size();
    previous = &tensor;
  }
  if (covered != data.size()) {
    return invalid_argument("{}: the tensors end at data byte {}, the file at {}", what, covered,
                            data.size());
  }
  return {};
}

bool is_aligned(const TensorEntry& tensor) {
  return reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % dtype_size(tensor.dtype) == 0;
}

}  // namespace

Result<std::vector<TensorEntry>> parse_safetensors(std::span<const std::byte> file,
                                                   std::string_view what) {
  if (file.size() < kLengthBytes) {
    return invalid_argument("{} has {} bytes; a safetensors file has at least {}", what,
                            file.size(), kLengthBytes);
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    length |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  if (length > kMaxSafetensorsHeaderBytes || length > file.size() - kLengthBytes) {
    return not_safetensors(file, what, length);
  }
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  const std::span<const std::byte> data = file.subspan(kLengthBytes + length);
  FOVEA_TRY(const json::value root, json::parse(header, what, 8));
  if (!root.is_object()) return invalid_argument("{}: the header is not a JSON object", what);
  if (const auto doubled = json::find_doubled_key(header)) {
    return invalid_argument("{}: the header names \"{}\" twice", what, *doubled);
  }
  std::vector<TensorEntry> tensors;
  tensors.reserve(root.get_object().size());
  for (const auto& member : root.get_object()) {
    if (member.key() == "__metadata__") continue;
    FOVEA_TRY(TensorEntry entry, parse_entry(member.value(), data, {what, member.key()}));
    tensors.push_back(std::move(entry));
  }
  // Empty tensors first among those that begin at the same byte.
  std::sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    if (a.bytes.data() != b.bytes.data()) return std::less<>()(a.bytes.data(), b.bytes.data());
    return a.bytes.size() < b.bytes.size();
  });
  FOVEA_TRY_STATUS(check_coverage(tensors, data, what));
  return tensors;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  FOVEA_TRY(MappedFile mapped, MappedFile::open(path));
  SafetensorsFile file(std::move(mapped));
  FOVEA_TRY(file.tensors_, parse_safetensors(file.file_.bytes(), path.string()));
  for (TensorEntry& tensor : file.tensors_) {
    if (is_aligned(tensor)) continue;
    auto copy = std::make_unique<std::byte[]>(tensor.bytes.size());
    std::memcpy(copy.get(), tensor.bytes.data(), tensor.bytes.size());
    file.file_.release(tensor.bytes);
    tensor.bytes = {copy.get(), tensor.bytes.size()};
    file.copies_.push_back(std::move(copy));
  }
  return file;
}

void SafetensorsFile::release(std::span<const std::byte> range) const {
  // Dropping the pages of a copy would lose its bytes: only the mapping can read them again.
  const auto mapped = file_.bytes();
  const std::less_equal<> not_after;
  if (not_after(mapped.data(), range.data()) &&
      not_after(range.data() + range.size(), mapped.data() + mapped.size())) {
    file_.release(range);
  }
}

}  // namespace fovea
