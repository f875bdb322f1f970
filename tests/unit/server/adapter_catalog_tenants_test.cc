// Who may do what through the catalog, and what tenants may have.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "memory/base/error_detail.h"
#include "server/adapter_catalog.h"
#include "tests/unit/server/catalog_fixture.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;

TEST(IdForCreateTest, WhatATenantCreatesIsItsOwn) {
  const auto id = [](std::string_view caller, std::string_view adapter_id) {
    const auto made = AdapterCatalog::IdForCreate(caller, adapter_id);
    return made.ok() ? *made : ReasonOf(made.status());
  };
  EXPECT_EQ(id("", "foo"), "foo");
  EXPECT_EQ(id("", "acme/foo"), "acme/foo");
  EXPECT_EQ(id("acme", "foo"), "acme/foo");
  EXPECT_EQ(id("acme", "acme/foo"), "acme/foo");
  EXPECT_EQ(id("acme", "other/foo"), "NOT_YOURS");
  for (const char* caller : {"", "acme"}) {
    for (const char* bad : {"", "a/b/c", "/a", "a/", "../x", "foo@1", "Foo", "adapters/foo"}) {
      const auto made = AdapterCatalog::IdForCreate(caller, bad);
      EXPECT_TRUE(absl::IsInvalidArgument(made.status())) << bad << " for " << caller;
      EXPECT_EQ(GetErrorDetail(made.status()).field, "adapter_id");
    }
  }
  EXPECT_TRUE(absl::IsPermissionDenied(AdapterCatalog::IdForCreate("acme", "other/foo").status()));
}

class CatalogTenantsTest : public CatalogTest {
 protected:
  std::vector<std::string> Listed(std::string_view caller) const {
    std::vector<std::string> ids;
    for (const AdapterInfo& info : catalog_->List(caller, "", 100)) ids.push_back(info.id());
    return ids;
  }
  static std::string Outcome(const absl::Status& status) { return ReasonOf(status); }
};

TEST_F(CatalogTenantsTest, TheMatrixOfWhoMayDoWhat) {
  struct Case {
    const char* caller;
    const char* name;
    const char* see;     // get, versions, resolve
    const char* change;  // update, rollback, delete
  };
  const char* none = "ADAPTER_NOT_FOUND";
  const Case cases[] = {
      {"", "foo", "OK", "OK"},
      {"", "acme/own", "OK", "OK"},
      {"acme", "foo", "OK", "NOT_YOURS"},
      {"acme", "own", "OK", "OK"},
      {"acme", "acme/own", "OK", "OK"},
      {"other", "foo", "OK", "NOT_YOURS"},
      {"other", "own", none, none},
      {"other", "acme/own", none, none},
      {"other", "acme/absent", none, none},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(fmt::format("{} of \"{}\"", c.name, c.caller));
    std::filesystem::remove_all(folder_.path() / "state");
    Open();
    for (const char* id : {"foo", "acme/own"}) {
      Put(id, {.value = 1});
      Put(id, {.value = 2});
    }
    EXPECT_EQ(Outcome(catalog_->Get(c.caller, c.name).status()), c.see);
    EXPECT_EQ(Outcome(catalog_->Versions(c.caller, c.name).status()), c.see);
    EXPECT_EQ(Outcome(catalog_->Resolve(c.caller, c.name).status()), c.see);
    EXPECT_EQ(Outcome(catalog_->Resolve(c.caller, std::string(c.name) + "@1").status()), c.see);
    EXPECT_EQ(Outcome(catalog_->Update(c.caller, c.name, {.description = "x"}, {}, "").status()),
              c.change);
    EXPECT_EQ(Outcome(catalog_->Rollback(c.caller, c.name, 0, "").status()), c.change);
    EXPECT_EQ(Outcome(catalog_->Delete(c.caller, c.name, "").status()), c.change);
    EXPECT_EQ(catalog_->Count(""), c.change == std::string("OK") ? 1 : 2);
  }
}

TEST_F(CatalogTenantsTest, ListsShowWhatTheCallerMaySee) {
  Open();
  int value = 1;
  for (const char* id : {"foo", "acme/foo", "other/foo", "zoo"}) {
    Put(id, {.value = static_cast<float>(value++)});
  }
  EXPECT_THAT(Listed(""), ElementsAre("acme/foo", "foo", "other/foo", "zoo"));
  EXPECT_THAT(Listed("acme"), ElementsAre("acme/foo", "foo", "zoo"));
  EXPECT_EQ(catalog_->Count("acme"), 3);
  const auto page = catalog_->List("acme", "acme/foo", 1);
  ASSERT_EQ(page.size(), 1u);
  EXPECT_EQ(page[0].id(), "foo");
  EXPECT_TRUE(catalog_->Peek("acme", "foo").has_value());
  EXPECT_FALSE(catalog_->Peek("acme", "other/foo").has_value());
  EXPECT_FALSE(catalog_->Peek("", "absent").has_value());
}

TEST_F(CatalogTenantsTest, ATenantsLimitsAreHeld) {
  const int64_t each = BytesOf({});
  tenants_ = TenantTable({{"acme", {.max_adapters = 2}}, {"bytes", {.max_bytes = 3 * each}}}, {});
  Open();
  Put("acme/a", {.value = 1});
  Put("acme/b", {.value = 2});
  const absl::Status third = Create({.id = "acme/c"}, {.value = 3}).status();
  EXPECT_TRUE(absl::IsResourceExhausted(third)) << third;
  EXPECT_EQ(ReasonOf(third), "TENANT_TOO_MANY_ADAPTERS");
  Put("acme/b", {.value = 4});  // a new version is no new adapter
  Put("other/c", {.value = 3});
  Put("c", {.value = 3});

  Put("bytes/a", {.value = 1});
  Put("bytes/a", {.value = 2});  // the first is kept, and counts
  Put("bytes/a", {.value = 3});
  EXPECT_EQ(ReasonOf(Create({.id = "bytes/b"}, {.value = 4}).status()), "TENANT_BYTES_EXCEEDED");
  EXPECT_EQ(ReasonOf(Create({.id = "bytes/a", .replace = true}, {.value = 4}).status()),
            "TENANT_BYTES_EXCEEDED");
  EXPECT_TRUE(Create({.id = "bytes/a"}, {.value = 3}).ok()) << "the same files take no room";
  // Refused before bytes are sent, and at the commit.
  EXPECT_FALSE(catalog_->CheckCreatable({.id = "bytes/b"}, Declared({.value = 4})).ok());
  auto staged = Stage({.value = 4});
  EXPECT_EQ(ReasonOf(catalog_->Commit(*std::move(staged), {.id = "bytes/b"}).status()),
            "TENANT_BYTES_EXCEEDED");
  ASSERT_TRUE(catalog_->Delete("bytes", "a", "").ok());
  RunLater();
  EXPECT_TRUE(Create({.id = "bytes/b"}, {.value = 4}).ok());
}

TEST_F(CatalogTenantsTest, TheServersLimitIsOfAllAdapters) {
  max_adapters_ = 2;
  Open();
  Put("a", {.value = 1});
  Put("acme/a", {.value = 2});
  EXPECT_EQ(ReasonOf(Create({.id = "b"}, {.value = 3}).status()), "TOO_MANY_ADAPTERS");
  Put("a", {.value = 4});
}

// Many at once, of two tenants: never more than each may have, and exactly as many.
class ConcurrentCreatesTest : public CatalogTenantsTest {
 protected:
  static constexpr int kMost = 3;

  void Run(const std::string& reason) {
    constexpr int kThreads = 6, kEach = 3;
    std::atomic<int> made[2] = {0, 0}, refused[2] = {0, 0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kEach; ++i) {
          const int tenant = (t + i) % 2;
          auto staged = Stage({.value = static_cast<float>(t * kEach + i)});
          ASSERT_TRUE(staged.ok());
          const auto created = catalog_->Commit(
              *std::move(staged), {.id = fmt::format("tenant-{}/a-{}-{}", tenant, t, i)});
          (created.ok() ? made : refused)[tenant] += 1;
          if (!created.ok()) {
            EXPECT_EQ(ReasonOf(created.status()), reason);
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (int tenant = 0; tenant < 2; ++tenant) {
      EXPECT_EQ(made[tenant], kMost);
      EXPECT_EQ(made[tenant] + refused[tenant], kThreads * kEach / 2);
      EXPECT_EQ(catalog_->Count(fmt::format("tenant-{}", tenant)), kMost);
    }
    EXPECT_EQ(counted_, 2 * kMost);
    Open();
    EXPECT_EQ(catalog_->Count(""), 2 * kMost);
  }
};

TEST_F(ConcurrentCreatesTest, CannotPassALimitOfAdaptersTogether) {
  tenants_ = TenantTable({}, {.max_adapters = kMost});
  Open();
  Run("TENANT_TOO_MANY_ADAPTERS");
}

TEST_F(ConcurrentCreatesTest, CannotPassALimitOfBytesTogether) {
  tenants_ = TenantTable({}, {.max_bytes = kMost * BytesOf({}) + BytesOf({}) / 2});
  Open();
  Run("TENANT_BYTES_EXCEEDED");
}

// Uploads of one name at once, all the same: one version, and everybody is told of it.
TEST_F(CatalogTenantsTest, ConcurrentCreatesOfTheSameFilesAreOne) {
  Open();
  std::vector<std::thread> threads;
  std::atomic<int> ok = 0;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&] {
      auto staged = Stage({});
      ASSERT_TRUE(staged.ok());
      const auto created = catalog_->Commit(*std::move(staged), {.id = "foo"});
      EXPECT_TRUE(created.ok()) << created.status();
      if (created.ok()) ok += created->version->version == 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ok, 6);
  EXPECT_THAT(VersionsOnDisk(), ElementsAre("foo/1"));
}

}  // namespace
}  // namespace lorad
