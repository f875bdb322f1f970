#include "model/safetensors.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <limits>

#include "memory/base/error_detail.h"
#include "model/model_tensors.h"
#include "tests/unit/model/safetensors_writer.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(Safetensors, GivesNamesShapesTypesAndData) {
  const std::string file = SafetensorsBytes({FilledTensor("b", {2, 3}, 1.5f),
                                             {"a", "BF16", {2}, std::string("\x80\x3f\x00\xc0", 4)},
                                             {"ids", "I64", {1}, std::string(8, '\0')},
                                             {"scalar", "F32", {}, std::string(4, '\0')}},
                                            R"({"format":"pt"})");
  const auto parsed = SafetensorsFile::FromBytes(Bytes(file));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->tensors().size(), 4u);
  EXPECT_EQ(parsed->metadata().at("format"), "pt");
  EXPECT_EQ(parsed->bytes().size(), file.size());

  const TensorView* b = parsed->Find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_THAT(b->shape, ElementsAre(2, 3));
  EXPECT_EQ(b->dtype, kernels::DType::kF32);
  EXPECT_EQ(b->data.size(), 24u);
  const auto matrix = AsMatrix(*b, 2, 3);
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ(matrix->data, b->data.data());
  EXPECT_EQ(matrix->cols, 3);

  EXPECT_THAT(*AsVector(*parsed->Find("a"), 2), ElementsAre(1.0f, -2.0f));
  EXPECT_EQ(parsed->Find("ids")->dtype, std::nullopt);
  EXPECT_EQ(parsed->Find("ids")->dtype_name, "I64");
  EXPECT_TRUE(parsed->Find("scalar")->shape.empty());
  EXPECT_EQ(parsed->Find("scalar")->data.size(), 4u);
  EXPECT_EQ(parsed->Find("c"), nullptr);
}

TEST(Safetensors, ConvertsHalfPrecisionExactly) {
  // 1, -2, the largest, the smallest normal, the smallest subnormal, infinity.
  const std::string data("\x00\x3c\x00\xc0\xff\x7b\x00\x04\x01\x00\x00\x7c", 12);
  const std::string file = SafetensorsBytes({{"h", "F16", {6}, data}});
  const auto parsed = SafetensorsFile::FromBytes(Bytes(file));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(*AsVector(*parsed->Find("h"), 6),
              ElementsAre(1.0f, -2.0f, 65504.0f, 0x1p-14f, 0x1p-24f,
                          std::numeric_limits<float>::infinity()));
}

TEST(Safetensors, ShapeAndTypeOfWhatIsAskedForAreChecked) {
  const std::string file =
      SafetensorsBytes({FilledTensor("m", {2, 3}, 0), {"i", "I32", {1}, std::string(4, '\0')}});
  const auto parsed = SafetensorsFile::FromBytes(Bytes(file));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const absl::Status shape = AsMatrix(*parsed->Find("m"), 3, 2).status();
  EXPECT_THAT(Message(shape), HasSubstr("[2, 3], expected [3, 2]"));
  EXPECT_EQ(GetErrorDetail(shape).field, "m");
  EXPECT_FALSE(AsVector(*parsed->Find("m"), 6).ok());
  EXPECT_THAT(Message(AsVector(*parsed->Find("i"), 1).status()), HasSubstr("dtype I32"));
}

TEST(Safetensors, AcceptsOffsetsInAnyOrderOfTheHeaderAndPadding) {
  const std::string file =
      SafetensorsBytes(R"({"second":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},)"
                       R"("first":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}      )",
                       "abc");
  const auto parsed = SafetensorsFile::FromBytes(Bytes(file));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(static_cast<char>(parsed->Find("second")->data[0]), 'b');
}

TEST(Safetensors, AcceptsAFileWithoutTensors) {
  const std::string file = SafetensorsBytes("{}", "");
  const auto parsed = SafetensorsFile::FromBytes(Bytes(file));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->tensors().empty());
}

struct BadHeader {
  std::string header;
  std::string data;
  std::string message;
};

class SafetensorsRefuses : public ::testing::TestWithParam<BadHeader> {};

TEST_P(SafetensorsRefuses, WithTheReason) {
  const std::string file = SafetensorsBytes(GetParam().header, GetParam().data);
  const auto parsed = SafetensorsFile::FromBytes(Bytes(file), {.max_dimensions = 4});
  ASSERT_FALSE(parsed.ok()) << GetParam().header;
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetail(parsed.status()).reason, "SAFETENSORS_INVALID");
  EXPECT_FALSE(GetErrorDetail(parsed.status()).field.empty());
  EXPECT_THAT(Message(parsed.status()), HasSubstr(GetParam().message));
}

std::string One(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return fmt::format(R"({{"t":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape,
                     offsets);
}

const std::string kUnsigned64Max = "18446744073709551615";

INSTANTIATE_TEST_SUITE_P(
    Json, SafetensorsRefuses,
    ::testing::Values(
        BadHeader{"", "", "must begin with '{'"}, BadHeader{" {}", "", "must begin with '{'"},
        BadHeader{"[]", "", "must begin with '{'"}, BadHeader{"\xef\xbb\xbf{}", "", "must begin"},
        BadHeader{"{", "", "not valid JSON"}, BadHeader{"{}}", "", "not valid JSON"},
        BadHeader{"{} {}", "", "not valid JSON"}, BadHeader{R"({"a":NaN})", "", "not valid JSON"},
        BadHeader{std::string("{}\0garbage", 10), "", "NUL"},
        BadHeader{"{\"\xff\xfe\":1}", "", "not valid JSON"},
        BadHeader{"{\"\xc0\x80\":{}}", "", "not valid JSON"},
        BadHeader{R"({"a":1e999})", "", "not valid JSON"},
        BadHeader{R"({"a":{},"a":{}})", "", "duplicate key \"a\""},
        BadHeader{R"({"a":{"dtype":"U8","dtype":"F32"}})", "", "duplicate key \"dtype\""},
        BadHeader{R"({"a":[[[[1]]]]})", "", "nested deeper"},
        BadHeader{"{\"a\":" + std::string(100000, '['), "", "nested deeper"},
        BadHeader{"{\"a\":[" + std::string(3 << 20, '1'), "", "not valid JSON"},
        BadHeader{R"({"a":5})", "", "must be an object"},
        BadHeader{R"({"":{}})", "", "without a name"},
        BadHeader{R"({"__metadata__":[]})", "", "must be an object"},
        BadHeader{R"({"__metadata__":{"k":1}})", "", "must be a string"},
        BadHeader{R"({"__metadata__":{"k":{}}})", "", "must be a string"}));

INSTANTIATE_TEST_SUITE_P(
    Tensors, SafetensorsRefuses,
    ::testing::Values(
        BadHeader{R"({"t":{"dtype":"U8","shape":[1]}})", "x", "exactly dtype, shape"},
        BadHeader{R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}})", "x",
                  "exactly"},
        BadHeader{One("\"u8\"", "[1]", "[0,1]"), "x", "unknown dtype \"u8\""},
        BadHeader{One("\"F128\"", "[1]", "[0,16]"), std::string(16, 'x'), "unknown dtype"},
        BadHeader{One("8", "[1]", "[0,1]"), "x", "dtype must be a string"},
        BadHeader{One("\"U8\"", "1", "[0,1]"), "x", "shape must be an array"},
        BadHeader{One("\"U8\"", "[1.0]", "[0,1]"), "x", "positive integer"},
        BadHeader{One("\"U8\"", "[-1]", "[0,1]"), "x", "positive integer"},
        BadHeader{One("\"U8\"", "[true]", "[0,1]"), "x", "positive integer"},
        BadHeader{One("\"U8\"", "[" + kUnsigned64Max + "]", "[0,1]"), "x", "positive integer"},
        BadHeader{One("\"U8\"", "[1,1,1,1,1]", "[0,1]"), "x", "5 dimensions, more than 4"},
        // Empty tensors could share an offset with anything.
        BadHeader{One("\"U8\"", "[0]", "[0,0]"), "", "positive integer"},
        BadHeader{One("\"U8\"", "[4,0]", "[0,0]"), "", "positive integer"},
        // The product overflows, to a value that would fit.
        BadHeader{One("\"U8\"", "[4294967296,4294967296]", "[0,0]"), "", "no size"},
        BadHeader{One("\"F32\"", "[4611686018427387904]", "[0,0]"), "", "no size"},
        BadHeader{One("\"F32\"", "[9223372036854775807]", "[0,4]"), "xxxx", "no size"},
        BadHeader{One("\"U8\"", "[9223372036854775807,2]", "[0,4]"), "xxxx", "no size"},
        BadHeader{One("\"F4\"", "[3]", "[0,1]"), "x", "no size in whole bytes"}));

INSTANTIATE_TEST_SUITE_P(
    Offsets, SafetensorsRefuses,
    ::testing::Values(
        BadHeader{One("\"U8\"", "[1]", "0"), "x", "two non-negative"},
        BadHeader{One("\"U8\"", "[1]", "[0]"), "x", "two non-negative"},
        BadHeader{One("\"U8\"", "[1]", "[0,1,2]"), "x", "two non-negative"},
        BadHeader{One("\"U8\"", "[1]", "[-1,0]"), "x", "two non-negative"},
        BadHeader{One("\"U8\"", "[1]", "[0.0,1.0]"), "x", "two non-negative"},
        BadHeader{One("\"U8\"", "[1]", "[0,\"1\"]"), "x", "two non-negative"},
        BadHeader{One("\"U8\"", "[1]", "[1,0]"), "x", "do not hold 1 bytes"},
        BadHeader{One("\"U8\"", "[2]", "[0,1]"), "x", "do not hold 2 bytes of U8 [2]"},
        BadHeader{One("\"F32\"", "[1]", "[0,3]"), "xxx", "do not hold 4 bytes"},
        BadHeader{One("\"U8\"", "[1]", "[0,18446744073709551616]"), "x", "two non-negative"},
        BadHeader{One("\"U8\"", "[1]", "[" + kUnsigned64Max + ",0]"), "x", "do not hold"},
        BadHeader{One("\"U8\"", "[1]", "[18446744073709551614," + kUnsigned64Max + "]"), "x",
                  "hole"},
        BadHeader{One("\"U8\"", "[2]", "[0,2]"), "x", "data ends at 2, but the file has only 1"},
        BadHeader{One("\"U8\"", "[1]", "[1,2]"), "xx", "there is a hole"},
        BadHeader{One("\"U8\"", "[1]", "[0,1]"), "xx", "1 bytes follow the last tensor"},
        BadHeader{"{}", "x", "1 bytes follow the last tensor"},
        BadHeader{R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                  R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                  "xxx", "they overlap"},
        BadHeader{R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                  R"("b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                  "xx", "they overlap"},
        BadHeader{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                  "xxx", "there is a hole"}));

TEST(SafetensorsLength, EveryTruncationIsRefused) {
  const std::string file = SafetensorsBytes({FilledTensor("t", {2}, 1)});
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(SafetensorsFile::FromBytes(Bytes(file).first(size)).ok()) << size;
  }
  EXPECT_TRUE(SafetensorsFile::FromBytes(Bytes(file)).ok());
  EXPECT_FALSE(SafetensorsFile::FromBytes(Bytes(file + "x")).ok());
}

// Eight bytes of length, then "{}".
std::string WithLength(uint64_t length) {
  std::string file = SafetensorsBytes("{}", "");
  for (int i = 0; i < 8; ++i) file[static_cast<size_t>(i)] = static_cast<char>(length >> (8 * i));
  return file;
}

TEST(SafetensorsLength, BoundaryValuesOfTheHeaderLength) {
  EXPECT_TRUE(SafetensorsFile::FromBytes(Bytes(WithLength(2))).ok());
  for (const uint64_t length :
       {uint64_t{0}, uint64_t{1}, uint64_t{3}, uint64_t{10}, uint64_t{16} << 20,
        (uint64_t{16} << 20) + 1, uint64_t{100'000'000}, uint64_t{INT32_MAX}, uint64_t{UINT32_MAX},
        uint64_t{1} << 32, (uint64_t{1} << 32) + 2, uint64_t{INT64_MAX}, uint64_t{1} << 63,
        UINT64_MAX - 8, UINT64_MAX - 7, UINT64_MAX - 6, UINT64_MAX}) {
    const auto parsed = SafetensorsFile::FromBytes(Bytes(WithLength(length)));
    EXPECT_EQ(GetErrorDetail(parsed.status()).reason, "SAFETENSORS_INVALID") << length;
  }
}

TEST(SafetensorsLength, HeaderLimitIsExact) {
  const std::string file = SafetensorsBytes("{}" + std::string(98, ' '), "");
  EXPECT_TRUE(SafetensorsFile::FromBytes(Bytes(file), {.max_header_bytes = 100}).ok());
  const auto refused = SafetensorsFile::FromBytes(Bytes(file), {.max_header_bytes = 99});
  EXPECT_THAT(Message(refused.status()), HasSubstr("more than the limit of 99"));
}

TEST(SafetensorsOpen, ChecksTheFileBeforeItsContent) {
  const TemporaryFolder folder;
  const auto path = folder.Write("t.safetensors", SafetensorsBytes({FilledTensor("t", {2}, 7)}));
  {
    auto opened = SafetensorsFile::Open(path);
    ASSERT_TRUE(opened.ok()) << opened.status();
    const std::byte* data = opened->Find("t")->data.data();
    const SafetensorsFile moved = std::move(*opened);
    EXPECT_EQ(moved.Find("t")->data.data(), data);
    EXPECT_EQ((*AsVector(*moved.Find("t"), 2))[1], 7.0f);
  }
  const uint64_t size = std::filesystem::file_size(path);
  EXPECT_TRUE(SafetensorsFile::Open(path, {.file = {.max_bytes = size}}).ok());
  EXPECT_THAT(Message(SafetensorsFile::Open(path, {.file = {.max_bytes = size - 1}}).status()),
              HasSubstr("more than the limit"));

  std::filesystem::create_symlink(path, folder.path() / "link");
  EXPECT_THAT(Message(SafetensorsFile::Open(folder.path() / "link").status()),
              HasSubstr("link: is a symbolic link"));
  EXPECT_TRUE(
      SafetensorsFile::Open(folder.path() / "link", {.file = {.follow_symlinks = true}}).ok());

  EXPECT_THAT(Message(SafetensorsFile::Open(folder.path()).status()),
              HasSubstr("not a regular file"));
  ASSERT_EQ(::mkfifo((folder.path() / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(Message(SafetensorsFile::Open(folder.path() / "fifo").status()),
              HasSubstr("not a regular file"));
  EXPECT_EQ(SafetensorsFile::Open(folder.path() / "none").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(SafetensorsFile::Open(folder.Write("empty", "")).ok());
}

TEST(ModelTensors, ReadsASingleFile) {
  const TemporaryFolder folder;
  folder.Write("model.safetensors",
               SafetensorsBytes({FilledTensor("w", {2, 3}, 1), FilledTensor("n", {3}, 2)}));
  const auto model = ModelTensors::Open(folder.path());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->names(), ElementsAre("n", "w"));
  EXPECT_TRUE(model->Matrix("w", 2, 3).ok());
  EXPECT_FALSE(model->Matrix("w", 3, 2).ok());
  EXPECT_EQ(model->Matrix("x", 2, 3).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(*model->Vector("n", 3), ElementsAre(2.0f, 2.0f, 2.0f));
}

TEST(ModelTensors, ReadsShardsThroughLinks) {
  const TemporaryFolder folder;
  const TemporaryFolder blobs;
  folder.Write("one.safetensors", SafetensorsBytes({FilledTensor("a", {1}, 1)}));
  std::filesystem::create_symlink(
      blobs.Write("blob", SafetensorsBytes({FilledTensor("b", {1}, 2), FilledTensor("c", {1}, 3)})),
      folder.path() / "two.safetensors");
  folder.Write(
      "model.safetensors.index.json",
      R"({"metadata":{"total_size":8},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const auto model = ModelTensors::Open(folder.path());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->names(), ElementsAre("a", "b"));
  EXPECT_THAT(*model->Vector("b", 1), ElementsAre(2.0f));
}

TEST(ModelTensors, RefusesIndexesThatReachOutOrLie) {
  const TemporaryFolder folder;
  folder.Write("one.safetensors", SafetensorsBytes({FilledTensor("a", {1}, 1)}));
  const auto open = [&](const std::string& index) {
    folder.Write("model.safetensors.index.json", index);
    return ModelTensors::Open(folder.path()).status();
  };
  EXPECT_TRUE(open(R"({"weight_map":{"a":"one.safetensors"}})").ok());
  for (const std::string file : {"../one.safetensors", "/etc/x.safetensors", "d/one.safetensors",
                                 "..", "", "one.bin", ".safetensors", "one\\u0000.safetensors"}) {
    EXPECT_THAT(Message(open(fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", file))),
                HasSubstr("weight_map.a: must be the plain name"))
        << file;
  }
  EXPECT_THAT(Message(open(R"({"weight_map":{"z":"one.safetensors"}})")), HasSubstr("lacks it"));
  EXPECT_THAT(Message(open(R"({"weight_map":{"a":1}})")), HasSubstr("weight_map.a"));
  EXPECT_THAT(Message(open(R"({"weight_map":[]})")), HasSubstr("must be an object"));
  EXPECT_FALSE(open(R"({"weight_map":{"a":"two.safetensors"}})").ok());
  EXPECT_FALSE(open("{").ok());
}

TEST(ModelTensors, SaysThatAFolderHasNoModel) {
  const TemporaryFolder folder;
  const absl::Status status = ModelTensors::Open(folder.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), HasSubstr(folder.path().string()));
}

}  // namespace
}  // namespace lorad
