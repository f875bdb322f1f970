#include "memory/stored_version.h"

#include <gtest/gtest.h>

#include "memory/base/error_detail.h"
#include "memory/store_layout.h"

namespace lorad {
namespace {

TEST(AdapterId, TakesGoodIds) {
  for (const std::string& id :
       {std::string("a"), std::string("0"), std::string("acme-7_v2.1"), std::string("a."),
        std::string(128, 'x'), std::string("a/b"), std::string("acme.co/foo-1"),
        std::string(64, 'x') + "/" + std::string(128, 'y')}) {
    EXPECT_EQ(ValidateAdapterId(id), absl::OkStatus()) << id;
  }
}

TEST(AdapterId, RefusesAllElse) {
  for (const std::string& id : {std::string(),
                                std::string("."),
                                std::string(".."),
                                std::string("../etc"),
                                std::string("/etc"),
                                std::string("a\\b"),
                                std::string("a..b"),
                                std::string("A"),
                                std::string("-a"),
                                std::string("_a"),
                                std::string(".a"),
                                std::string("a b"),
                                std::string("a\0b", 3),
                                std::string("a\n"),
                                std::string("\xd0\xb0"),
                                std::string("caf\xc3\xa9"),
                                std::string(129, 'x'),
                                std::string(100'000, 'x'),
                                std::string("a/b/c"),
                                std::string("/a"),
                                std::string("a/"),
                                std::string("/"),
                                std::string("../x"),
                                std::string("a/.."),
                                std::string("a/../b"),
                                std::string("./a"),
                                std::string("a//b"),
                                std::string("a~b"),
                                std::string("A/b"),
                                std::string("a/B"),
                                std::string(65, 'x') + "/a",
                                "a/" + std::string(129, 'x')}) {
    const absl::Status status = ValidateAdapterId(id);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << id.substr(0, 20);
    EXPECT_EQ(GetErrorDetail(status).field, "adapter_id");
    EXPECT_LT(status.message().size(), 200u);  // what was sent is not sent back
  }
}

TEST(TenantId, IsTheFirstPartOfAnId) {
  for (const std::string& tenant :
       {std::string("a"), std::string("0acme.co-1_x"), std::string(64, 'x')}) {
    EXPECT_EQ(ValidateTenantId(tenant), absl::OkStatus());
    EXPECT_EQ(ValidateAdapterId(tenant + "/a"), absl::OkStatus());
    EXPECT_EQ(OwnerOf(tenant + "/a"), tenant);
  }
  for (const std::string& tenant :
       {std::string(), std::string(".."), std::string("a..b"), std::string("A"), std::string("a/b"),
        std::string("-a"), std::string("a~b"), std::string("a b"), std::string(65, 'x')}) {
    const absl::Status status = ValidateTenantId(tenant);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << tenant;
    EXPECT_EQ(GetErrorDetail(status).field, "tenant");
    EXPECT_FALSE(ValidateAdapterId(tenant + "/a").ok());
  }
  EXPECT_EQ(OwnerOf("foo"), "");
  EXPECT_EQ(OwnerOf("acme.foo"), "");
}

TEST(DirectoryName, LeadsBackToTheIdAndToNoOther) {
  for (const char* id : {"a", "acme/foo", "a.b_c-1/d.e"}) {
    const std::string name = DirectoryName(id);
    EXPECT_EQ(name.find('/'), std::string::npos);
    EXPECT_EQ(IdOfDirectory(name), id);
  }
  for (const char* name : {"", "~", "a~", "~a", "a~b~c", "A", "..", "a~..", "unknown name"}) {
    EXPECT_EQ(IdOfDirectory(name), "") << name;
  }
}

TEST(AdapterId, NoByteOutsideTheSetIsTaken) {
  int taken = 0;
  for (int c = 0; c < 256; ++c) {
    const char byte = static_cast<char>(c);
    taken += ValidateAdapterId(std::string("a") + byte + "a").ok();
  }
  EXPECT_EQ(taken, 26 + 10 + 3 + 1);  // the last: '/'
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

}  // namespace
}  // namespace lorad
