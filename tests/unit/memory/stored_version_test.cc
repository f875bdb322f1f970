#include "memory/stored_version.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/base/error_detail.h"

namespace lorad {
namespace {

using ::testing::HasSubstr;

TEST(AdapterId, TakesGoodIds) {
  for (const std::string& id : {std::string("a"), std::string("0"), std::string("acme-7_v2.1"),
                                std::string("a."), std::string(128, 'x')}) {
    EXPECT_EQ(ValidateAdapterId(id), absl::OkStatus()) << id;
  }
}

TEST(AdapterId, RefusesAllElse) {
  for (const std::string& id :
       {std::string(), std::string("."), std::string(".."), std::string("../etc"),
        std::string("/etc"), std::string("a/b"), std::string("a\\b"), std::string("a..b"),
        std::string("A"), std::string("-a"), std::string("_a"), std::string(".a"),
        std::string("a b"), std::string("a\0b", 3), std::string("a\n"), std::string("\xd0\xb0"),
        std::string("caf\xc3\xa9"), std::string(129, 'x'), std::string(100'000, 'x')}) {
    const absl::Status status = ValidateAdapterId(id);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << id.substr(0, 20);
    EXPECT_EQ(GetErrorDetail(status).field, "adapter_id");
    EXPECT_LT(status.message().size(), 200u);  // what was sent is not sent back
  }
}

TEST(AdapterId, NoByteOutsideTheSetIsTaken) {
  int taken = 0;
  for (int c = 0; c < 256; ++c) {
    const char byte = static_cast<char>(c);
    taken += ValidateAdapterId(std::string("a") + byte + "a").ok();
  }
  EXPECT_EQ(taken, 26 + 10 + 3);
}

TEST(VersionNumber, IsOnlyWhatWeWrite) {
  EXPECT_EQ(ParseVersionNumber("1"), 1);
  EXPECT_EQ(ParseVersionNumber("1234567890"), 1234567890);
  EXPECT_EQ(ParseVersionNumber("1000000000000000"), 1'000'000'000'000'000);
  for (const char* text : {"", "0", "-1", "+1", "01", "1 ", " 1", "1.0", "1a", "a", "0x1",
                           "1000000000000001", "99999999999999999999"}) {
    EXPECT_EQ(ParseVersionNumber(text), 0) << text;
  }
}

StoredVersion Example() {
  return {
      .id = "acme-7",
      .version = 3,
      .path = {},
      .config = {.bytes = 10, .sha256 = std::string(64, 'a')},
      .weights = {.bytes = int64_t{5} << 32, .sha256 = std::string(64, 'b')},
      .create_time = std::chrono::system_clock::time_point(std::chrono::seconds(1'700'000'000))};
}

TEST(Manifest, ComesBackAsItWas) {
  const StoredVersion in = Example();
  const absl::StatusOr<StoredVersion> out = ParseManifest(ToManifest(in), "acme-7", 3);
  ASSERT_EQ(out.status(), absl::OkStatus());
  EXPECT_EQ(out->id, in.id);
  EXPECT_EQ(out->version, in.version);
  EXPECT_EQ(out->config.bytes, in.config.bytes);
  EXPECT_EQ(out->config.sha256, in.config.sha256);
  EXPECT_EQ(out->weights.bytes, in.weights.bytes);
  EXPECT_EQ(out->weights.sha256, in.weights.sha256);
  EXPECT_EQ(out->create_time, in.create_time);
  EXPECT_EQ(out->bytes(), in.config.bytes + in.weights.bytes);
}

TEST(Manifest, OfAnotherAdapterOrVersionIsDataLoss) {
  const std::string text = ToManifest(Example());
  EXPECT_TRUE(absl::IsDataLoss(ParseManifest(text, "acme-8", 3).status()));
  EXPECT_TRUE(absl::IsDataLoss(ParseManifest(text, "acme-7", 4).status()));
}

TEST(Manifest, EveryPrefixIsDataLoss) {
  const std::string text = ToManifest(Example());
  const size_t whole = text.rfind('}') + 1;
  for (size_t n = 0; n < whole; ++n) {
    EXPECT_TRUE(absl::IsDataLoss(ParseManifest(text.substr(0, n), "acme-7", 3).status())) << n;
  }
}

TEST(Manifest, WrongTypesAreDataLossAndNoException) {
  for (const char* text :
       {"[]", "3", "null", "{}", R"({"id": 3})", R"({"id": "acme-7", "version": "3"})",
        R"({"id": "acme-7", "version": 3, "create_time_ns": "x", "files": {}})",
        R"({"id": "acme-7", "version": 3, "create_time_ns": 1, "files": []})",
        R"({"id": "acme-7", "version": 3, "create_time_ns": 1, "files":
            {"adapter_config.json": 1, "adapter_model.safetensors": 2}})",
        R"({"id": "acme-7", "version": 3, "create_time_ns": 1, "files":
            {"adapter_config.json": {"bytes": "1", "sha256": ""},
             "adapter_model.safetensors": {"bytes": 1, "sha256": 3}}})"}) {
    EXPECT_TRUE(absl::IsDataLoss(ParseManifest(text, "acme-7", 3).status())) << text;
  }
  EXPECT_THAT(std::string(ParseManifest("", "acme-7", 3).status().message()),
              HasSubstr("acme-7 version 3"));
}

}  // namespace
}  // namespace lorad
