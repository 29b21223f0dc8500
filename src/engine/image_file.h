#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "fovea/result.h"

#include "base/sha256.h"
#include "image/identity.h"
#include "tensor/tensor_view.h"

namespace fovea {

/// The embeddings of a picture in host memory.
struct HostEmbeddings {
  DType dtype = DType::kF32;     ///< f32 or bf16
  Shape shape;                   ///< [image_tokens, D]
  std::vector<std::byte> bytes;  ///< dense, row-major, little endian
};

/// What the embeddings in a file belong to.
struct ImageFileKey {
  ImageIdentity identity{};
  Sha256Digest model{};  ///< of the text that tells models apart
};

/// What a file has beyond the embeddings themselves.
inline constexpr std::size_t kImageFileOverhead = 128;

/// The bytes of a file: a header of fixed width, the embeddings, and the SHA-256 of both. Little
/// endian throughout. Errors: kUnsupported for other element types, kInvalidArgument when shape and
/// bytes disagree or the shape has other than two dimensions.
Result<std::vector<std::byte>> write_image_file(const ImageFileKey& key,
                                                const HostEmbeddings& embeddings);

/// The embeddings of a file as write_image_file() made it for the same key; nothing for any other
/// bytes.
std::optional<HostEmbeddings> parse_image_file(std::vector<std::byte> file,
                                               const ImageFileKey& key);

}  // namespace fovea
