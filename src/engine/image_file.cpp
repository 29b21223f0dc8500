#include "engine/image_file.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/math.h"

namespace fovea {
namespace {

static_assert(std::endian::native == std::endian::little, "files are written as memory has them");

constexpr std::string_view kMagic = "FOVEAEMB";
constexpr std::uint64_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 96;
constexpr std::size_t kDigestBytes = 32;
static_assert(kHeaderBytes + kDigestBytes == kImageFileOverhead);

// Codes of element types are the file's own: the enumeration in memory may change.
std::optional<std::uint64_t> code_of(DType dtype) {
  if (dtype == DType::kF32) return 0;
  if (dtype == DType::kBf16) return 1;
  return std::nullopt;
}

void append(std::vector<std::byte>& bytes, std::span<const std::byte> more) {
  bytes.insert(bytes.end(), more.begin(), more.end());
}

void append_number(std::vector<std::byte>& bytes, std::uint64_t number, int width) {
  for (int i = 0; i < width; ++i) bytes.push_back(static_cast<std::byte>(number >> (8 * i)));
}

// The header says all that is needed to know a file, so that reading compares instead of parsing:
// magic 8, version 4, type 4, rows 8, columns 8, identity 32, model 32.
std::vector<std::byte> header_of(const ImageFileKey& key, std::uint64_t dtype_code, Shape shape) {
  std::vector<std::byte> header;
  append(header, std::as_bytes(std::span(kMagic)));
  append_number(header, kVersion, 4);
  append_number(header, dtype_code, 4);
  append_number(header, static_cast<std::uint64_t>(shape[0]), 8);
  append_number(header, static_cast<std::uint64_t>(shape[1]), 8);
  append(header, key.identity);
  append(header, key.model);
  return header;
}

std::uint64_t number_at(std::span<const std::byte> bytes, std::size_t offset, int width) {
  std::uint64_t number = 0;
  for (int i = 0; i < width; ++i) {
    number |= std::to_integer<std::uint64_t>(bytes[offset + static_cast<std::size_t>(i)]) << 8 * i;
  }
  return number;
}

}  // namespace

Result<std::vector<std::byte>> write_image_file(const ImageFileKey& key,
                                                const HostEmbeddings& embeddings) {
  const std::optional<std::uint64_t> code = code_of(embeddings.dtype);
  if (!code) {
    return error(ErrorCode::kUnsupported, "embeddings of {} cannot be stored",
                 dtype_name(embeddings.dtype));
  }
  if (embeddings.shape.rank() != 2 || embeddings.shape[0] <= 0 || embeddings.shape[1] <= 0 ||
      TensorView{embeddings.dtype, embeddings.shape, nullptr}.size_bytes() !=
          embeddings.bytes.size()) {
    return invalid_argument("embeddings {} of {} do not take {} bytes",
                            embeddings.shape.to_string(), dtype_name(embeddings.dtype),
                            embeddings.bytes.size());
  }
  std::vector<std::byte> file;
  file.reserve(embeddings.bytes.size() + kImageFileOverhead);
  append(file, header_of(key, *code, embeddings.shape));
  append(file, embeddings.bytes);
  append(file, Sha256().update(file).finish());
  return file;
}

std::optional<HostEmbeddings> parse_image_file(std::vector<std::byte> file,
                                               const ImageFileKey& key) {
  if (file.size() <= kImageFileOverhead) return std::nullopt;
  const std::uint64_t code = number_at(file, 12, 4);
  if (code > 1) return std::nullopt;
  const DType dtype = code == 0 ? DType::kF32 : DType::kBf16;
  const std::uint64_t rows = number_at(file, 16, 8), cols = number_at(file, 24, 8);
  const std::optional<std::size_t> elements = checked_mul(rows, cols);
  if (!elements) return std::nullopt;
  const std::optional<std::size_t> size_bytes = checked_mul(*elements, dtype_size(dtype));
  if (!size_bytes || *size_bytes != file.size() - kImageFileOverhead) return std::nullopt;

  // Both sizes divide the file's, so they fit.
  const Shape shape{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols)};
  const std::vector<std::byte> header = header_of(key, code, shape);
  if (!std::equal(header.begin(), header.end(), file.begin())) return std::nullopt;
  const std::span<const std::byte> all = file;
  const Sha256Digest digest = Sha256().update(all.first(file.size() - kDigestBytes)).finish();
  if (!std::equal(digest.begin(), digest.end(), file.end() - kDigestBytes)) return std::nullopt;

  file.resize(file.size() - kDigestBytes);
  file.erase(file.begin(), file.begin() + kHeaderBytes);
  return HostEmbeddings{dtype, shape, std::move(file)};
}

}  // namespace fovea
