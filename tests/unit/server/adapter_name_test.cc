#include "server/adapter_name.h"

#include <gtest/gtest.h>

#include "memory/base/error_detail.h"

namespace lorad {
namespace {

void ExpectName(std::string_view text, std::string_view tenant, std::string_view name,
                int64_t version) {
  SCOPED_TRACE(text);
  const auto parsed = ParseAdapterName(text, "adapter");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->tenant, tenant);
  EXPECT_EQ(parsed->name, name);
  EXPECT_EQ(parsed->version, version);
}

TEST(AdapterNameTest, TakesAllForms) {
  ExpectName("foo", "", "foo", 0);
  ExpectName("adapters/foo", "", "foo", 0);
  ExpectName("acme/foo", "acme", "foo", 0);
  ExpectName("adapters/acme/foo", "acme", "foo", 0);
  ExpectName("foo@3", "", "foo", 3);
  ExpectName("adapters/acme/foo@12", "acme", "foo", 12);
}

// There are no such adapters, and it takes no error of its own to say so.
TEST(AdapterNameTest, ImpossibleNamesStayWhatTheyAre) {
  ExpectName("/foo", "", "/foo", 0);
  ExpectName("../x", "..", "x", 0);
  ExpectName("a/b/c", "a", "b/c", 0);
  ExpectName("adapters/adapters/foo", "adapters", "foo", 0);
  ExpectName("Upper Case", "", "Upper Case", 0);
  ExpectName("a@b@2", "", "a@b", 2);
}

TEST(AdapterNameTest, RefusesNoNameAndNoVersion) {
  for (const char* text : {"", "adapters/", "foo@", "foo@0", "foo@-1", "foo@+1", "foo@01", "foo@x",
                           "foo@1.0", "foo@99999999999999999999"}) {
    const auto parsed = ParseAdapterName(text, "name");
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(GetErrorDetail(parsed.status()).field, "name") << text;
  }
}

TEST(AdapterNameTest, IdsAreMadeOfTenantAndName) {
  EXPECT_EQ(AdapterIdIn("", "foo"), "foo");
  EXPECT_EQ(AdapterIdIn("acme", "foo"), "acme/foo");
  EXPECT_EQ(ParseAdapterName("adapters/acme/foo@3", "name")->id(), "acme/foo");
}

}  // namespace
}  // namespace lorad
