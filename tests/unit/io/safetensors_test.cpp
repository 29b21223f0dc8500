#include "io/safetensors.h"

#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "temp_folder.h"

namespace fovea {
namespace {

using testing::HasSubstr;

Result<std::vector<TensorEntry>> parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes)), "file.safetensors");
}

Error error_of(std::string_view header, std::string_view data) {
  // Kept alive through the call only: an error must not refer to the bytes.
  const auto result = parse(safetensors_bytes(header, data));
  return result.ok() ? Error{ErrorCode::kInternal, "no error"} : result.error();
}

TEST(Safetensors, ReadsNamesShapesTypesAndBytes) {
  const std::string bytes = safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"U8","shape":[0,7],"data_offsets":[4,4]}}  )",
      "0123456789abcdef");
  const auto tensors = parse(bytes);
  ASSERT_TRUE(tensors.ok()) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].shape, Shape{});
  EXPECT_EQ((*tensors)[1].name, "e");
  EXPECT_EQ((*tensors)[1].bytes.size(), 0u);
  EXPECT_EQ((*tensors)[2].dtype, DType::kBf16);
  EXPECT_EQ((*tensors)[2].shape, (Shape{2, 3}));
  EXPECT_EQ(std::memcmp((*tensors)[2].bytes.data(), "456789abcdef", 12), 0);
}

TEST(Safetensors, KnowsEveryTypeOfTheCheckpoints) {
  for (const auto& [name, dtype] : {std::pair{"F32", DType::kF32},
                                    {"BF16", DType::kBf16},
                                    {"F16", DType::kF16},
                                    {"F8_E4M3", DType::kF8E4M3},
                                    {"I32", DType::kI32},
                                    {"U8", DType::kU8}}) {
    const std::string data(dtype_size(dtype), 'x');
    const std::string header = R"({"t":{"dtype":")" + std::string(name) +
                               R"(","shape":[1],"data_offsets":[0,)" + std::to_string(data.size()) +
                               "]}}";
    const std::string bytes = safetensors_bytes(header, data);
    const auto tensors = parse(bytes);
    ASSERT_TRUE(tensors.ok()) << tensors.error().message;
    EXPECT_EQ(tensors->front().dtype, dtype);
  }
}

TEST(Safetensors, RefusesAnUnknownTypeByName) {
  const Error error =
      error_of(R"({"pos":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", "01234567");
  EXPECT_EQ(error.code, ErrorCode::kUnsupported);
  EXPECT_THAT(error.message, HasSubstr("\"pos\" has dtype I64"));
}

TEST(Safetensors, RefusesAFileShorterThanItsLength) {
  const auto result = parse("1234567");
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.error().message, HasSubstr("7 bytes"));
}

TEST(Safetensors, RefusesAHeaderLongerThanTheFile) {
  const auto result = parse(std::string("\x10\0\0\0\0\0\0\0{}", 10));
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.error().message, HasSubstr("truncated"));
}

TEST(Safetensors, RefusesAHeaderBeyondTheLimit) {
  const auto result = parse(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10));
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.error().message, HasSubstr("at most 100000000"));
}

TEST(Safetensors, ExplainsPicklesAndPointers) {
  const auto pickle = parse("PK\x03\x04 a zip archive of torch.save");
  ASSERT_FALSE(pickle.ok());
  EXPECT_THAT(pickle.error().message, HasSubstr("PyTorch pickle"));
  const auto pointer = parse("version https://git-lfs.github.com/spec/v1\n");
  ASSERT_FALSE(pointer.ok());
  EXPECT_THAT(pointer.error().message, HasSubstr("Git LFS"));
}

TEST(Safetensors, RefusesAHeaderThatIsNotAnObject) {
  EXPECT_THAT(error_of("[1]", "").message, HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of("{", "").message, HasSubstr("not valid JSON"));
}

TEST(Safetensors, RefusesDataPastTheEnd) {
  const Error error =
      error_of(R"({"t":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", "01234567");
  EXPECT_THAT(error.message, HasSubstr("\"t\" ends at data byte 9, but the file has only 8"));
}

TEST(Safetensors, RefusesSizesThatDoNotMatch) {
  const Error error =
      error_of(R"({"t":{"dtype":"F16","shape":[2,3],"data_offsets":[0,8]}})", "01234567");
  EXPECT_THAT(error.message, HasSubstr("\"t\" has 8 bytes of data; F16 of shape [2, 3] wants 12"));
}

TEST(Safetensors, RefusesShapesThatOverflow) {
  const Error error = error_of(
      R"({"t":{"dtype":"F32","shape":[4294967296,4294967296,1],"data_offsets":[0,0]}})", "");
  EXPECT_THAT(error.message, HasSubstr("impossible shape"));
  EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
}

TEST(Safetensors, RefusesShapesThatAreNotSizes) {
  for (const char* shape : {"[-1]", "[1.5]", "[\"2\"]", "[9223372036854775808]", "3", "null"}) {
    const Error error = error_of(
        R"({"t":{"dtype":"U8","shape":)" + std::string(shape) + R"(,"data_offsets":[0,1]}})", "x");
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument) << shape;
    EXPECT_THAT(error.message, HasSubstr("\"t\""));
  }
}

TEST(Safetensors, RefusesFiveDimensions) {
  const Error error =
      error_of(R"({"t":{"dtype":"U8","shape":[1,1,1,1,1],"data_offsets":[0,1]}})", "x");
  EXPECT_EQ(error.code, ErrorCode::kUnsupported);
  EXPECT_THAT(error.message, HasSubstr("5 dimensions"));
}

TEST(Safetensors, RefusesBadOffsets) {
  for (const char* offsets : {"[1,0]", "[0]", "[0,1,2]", "[-1,1]", "{}", "null"}) {
    const Error error = error_of(
        R"({"t":{"dtype":"U8","shape":[1],"data_offsets":)" + std::string(offsets) + "}}", "x");
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument) << offsets;
    EXPECT_THAT(error.message, HasSubstr("data_offsets"));
  }
}

TEST(Safetensors, RefusesOverlap) {
  const Error error = error_of(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                               R"("b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
                               "0123");
  EXPECT_THAT(error.message, HasSubstr("\"b\" begins at data byte 2, inside \"a\""));
}

TEST(Safetensors, RefusesBytesThatNobodyOwns) {
  EXPECT_THAT(error_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "01").message,
              HasSubstr("no tensor owns the gap"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "01").message,
              HasSubstr("end at data byte 1, the file at 2"));
}

TEST(Safetensors, RefusesADoubledName) {
  const std::string tensor = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  EXPECT_THAT(error_of(R"({"a":)" + tensor + R"(,"a":)" + tensor + "}", "x").message,
              HasSubstr("\"a\" twice"));
  EXPECT_THAT(error_of(R"({"a":)" + tensor + R"(,"\u0061":)" + tensor + "}", "x").message,
              HasSubstr("\"a\" twice"));
}

TEST(Safetensors, RefusesADescriptionThatIsNotAnObject) {
  EXPECT_THAT(error_of(R"({"a":[]})", "").message,
              HasSubstr("\"a\" is not described by an object"));
  EXPECT_THAT(error_of(R"({"a":{"shape":[0],"data_offsets":[0,0]}})", "").message,
              HasSubstr("\"a\" has no dtype"));
}

TEST(SafetensorsFile, CopiesUnalignedTensorsToAlignedMemory) {
  const TempFolder folder;
  // A header of odd length: the data of old writers begins anywhere.
  std::string header = R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  if (header.size() % 2 == 0) header += ' ';
  const auto path =
      folder.write("odd.safetensors", safetensors_bytes(header, std::string("\0\0\x80\x3f", 4)));
  auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file.ok()) << file.error().message;
  const SafetensorsFile moved = std::move(file).value();
  const TensorEntry& tensor = moved.tensors().front();
  ASSERT_EQ(reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % 4, 0u);
  moved.release(tensor.bytes);
  EXPECT_EQ(*reinterpret_cast<const float*>(tensor.bytes.data()), 1.0f);
}

TEST(SafetensorsFile, NamesTheFileInErrors) {
  const TempFolder folder;
  const auto file = SafetensorsFile::open(folder.write("empty.safetensors", ""));
  ASSERT_FALSE(file.ok());
  EXPECT_THAT(file.error().message, HasSubstr("empty.safetensors"));
}

}  // namespace
}  // namespace fovea
