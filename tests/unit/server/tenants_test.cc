#include "server/tenants.h"

#include <gtest/gtest.h>

#include <vector>

#include "memory/base/error_detail.h"

namespace lorad {
namespace {

absl::StatusOr<std::string> Read(const std::vector<std::string_view>& values) {
  return TenantOfMetadata(values);
}

TEST(TenantOfMetadataTest, OneNameOrNone) {
  EXPECT_EQ(*Read({}), "");
  EXPECT_EQ(*Read({"acme"}), "acme");
  EXPECT_EQ(*Read({"a-c_m.e7"}), "a-c_m.e7");
  const std::vector<std::vector<std::string_view>> bad = {
      {""},     {"Acme"}, {"a/b"},      {"acme", "acme"}, {"acme", "other"}, {".."},
      {"a..b"}, {"-"},    {"adapters"}, {" acme"},        {"acme\n"},        {"a,b"}};
  for (const auto& values : bad) {
    const auto tenant = Read(values);
    ASSERT_FALSE(tenant.ok()) << values[0];
    EXPECT_TRUE(absl::IsInvalidArgument(tenant.status()));
    EXPECT_EQ(GetErrorDetail(tenant.status()).reason, "INVALID_TENANT");
  }
  const std::string longest(64, 'a');
  EXPECT_EQ(*Read({longest}), longest);
  EXPECT_FALSE(Read({longest + "a"}).ok());
}

TEST(ParseTenantTest, TakesLimitsAndLeavesTheRest) {
  const TenantLimits defaults{.max_adapters = 3, .max_bytes = 4, .default_adapter = ""};
  auto tenant = ParseTenant("acme", defaults);
  ASSERT_TRUE(tenant.ok()) << tenant.status();
  EXPECT_EQ(tenant->first, "acme");
  EXPECT_EQ(tenant->second, defaults);
  tenant = ParseTenant("acme,max-adapters=10,max-bytes=1GiB,default-adapter=foo@2", defaults);
  ASSERT_TRUE(tenant.ok()) << tenant.status();
  EXPECT_EQ(tenant->second,
            (TenantLimits{
                .max_adapters = 10, .max_bytes = int64_t{1} << 30, .default_adapter = "foo@2"}));
  tenant = ParseTenant("acme,max-bytes=0", defaults);
  EXPECT_EQ(tenant->second.max_bytes, 0);
  EXPECT_EQ(tenant->second.max_adapters, 3);
  EXPECT_EQ(tenant->second.weight, 1);
  EXPECT_EQ(ParseTenant("acme,max-waiting=50", defaults)->second.max_waiting, 50);
  EXPECT_FALSE(ParseTenant("acme,max-waiting=-1", defaults).ok());
  EXPECT_EQ(ParseTenant("acme,weight=2.5", defaults)->second.weight, 2.5);
  EXPECT_EQ(ParseTenant("acme,weight=0.01", defaults)->second.weight, 0.01);
  EXPECT_EQ(ParseTenant("acme,weight=1000", defaults)->second.weight, 1000);
  for (const char* bad : {"acme,weight=0",
                          "acme,weight=0.009",
                          "acme,weight=1001",
                          "acme,weight=-1",
                          "acme,weight=nan",
                          "acme,weight=inf",
                          "acme,weight=",
                          "acme,weight=1x",
                          "",
                          "Acme",
                          "adapters",
                          ",max-adapters=1",
                          "acme,max-adapters",
                          "acme,max-adapters=",
                          "acme,max-adapters=-1",
                          "acme,max-adapters=x",
                          "acme,max-adapters=1x",
                          "acme,max-bytes=1Q",
                          "acme,max-bytes=GiB",
                          "acme,default-adapter=",
                          "acme,default-adapter=foo@x",
                          "acme,max_adapters=1",
                          "acme,,",
                          "acme max-adapters=1"}) {
    EXPECT_FALSE(ParseTenant(bad, defaults).ok()) << bad;
  }
}

TEST(ParseByteCountTest, UnitsAreOf1024) {
  EXPECT_EQ(*ParseByteCount("0"), 0);
  EXPECT_EQ(*ParseByteCount("17"), 17);
  EXPECT_EQ(*ParseByteCount("17b"), 17);
  EXPECT_EQ(*ParseByteCount("2k"), 2048);
  EXPECT_EQ(*ParseByteCount("2KiB"), 2048);
  EXPECT_EQ(*ParseByteCount("2kb"), 2048);
  EXPECT_EQ(*ParseByteCount("3MiB"), 3 << 20);
  EXPECT_EQ(*ParseByteCount("1TiB"), int64_t{1} << 40);
  EXPECT_EQ(*ParseByteCount("8388607TiB"), int64_t{8388607} << 40);
  for (const char* bad : {"", "x", "-1", "1.5GiB", "1 GiB", "1iB", "1kk", "8388608TiB",
                          "9223372036854775808", "1PiB"}) {
    EXPECT_FALSE(ParseByteCount(bad).ok()) << bad;
  }
}

TEST(TenantTableTest, NamedOnesHaveTheirOwnLimits) {
  const TenantTable table({{"acme", {.max_adapters = 10}}},
                          {.max_adapters = 2, .max_bytes = 100, .default_adapter = ""});
  EXPECT_EQ(table.Of("acme").max_adapters, 10);
  EXPECT_EQ(table.Of("acme").max_bytes, 0);
  EXPECT_EQ(table.Of("other").max_adapters, 2);
  EXPECT_EQ(table.Of("other").max_bytes, 100);
  EXPECT_EQ(table.Of(""), TenantLimits()) << "what is public is limited by the server alone";
}

}  // namespace
}  // namespace lorad
