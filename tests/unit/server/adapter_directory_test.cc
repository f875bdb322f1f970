// Who may see and change what, and what names mean.
#include "server/adapter_directory.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "memory/base/error_detail.h"
#include "memory/stored_version.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;

constexpr const char* kCallers[] = {"", "acme", "other", "third"};

AdapterVersionPtr Version(const std::string& id, int64_t number, uint32_t pages = 1,
                          bool fits = true) {
  auto version = std::make_shared<AdapterVersion>();
  version->name = id;
  version->version = number;
  version->pages = pages;
  if (fits) version->facts = std::make_shared<const AdapterFacts>();
  return version;
}

class DirectoryTest : public testing::Test {
 protected:
  void Put(const std::string& id, AdapterSettings settings = {}, uint32_t pages = 1) {
    directory_.Put({.current = Version(id, 1, pages),
                    .kept = {},
                    .settings = ShareSettings(std::move(settings)),
                    .revision = 1});
  }
  void PutAliases(const std::string& id, std::vector<std::string> aliases) {
    Put(id, {.aliases = std::move(aliases)});
  }

  // The id that `name` leads the caller to, or the error's reason.
  std::string Found(std::string_view caller, std::string_view name) const {
    const auto info = directory_.Find(caller, *ParseAdapterName(name, "name"));
    return info.ok() ? info->id() : GetErrorDetail(info.status()).reason;
  }
  std::string ForChange(std::string_view caller, std::string_view name) const {
    const auto info = directory_.FindForChange(caller, *ParseAdapterName(name, "name"));
    return info.ok() ? info->id() : GetErrorDetail(info.status()).reason;
  }
  std::vector<std::string> Listed(std::string_view caller) const {
    std::vector<std::string> ids;
    for (const auto* entry = directory_.After(caller, ""); entry != nullptr;
         entry = directory_.After(caller, ids.back())) {
      ids.push_back(entry->current->name);
    }
    return ids;
  }

  AdapterDirectory directory_;
};

TEST_F(DirectoryTest, EachSeesThePublicOnesAndItsOwn) {
  for (const char* id : {"acme/foo", "other/foo", "foo", "zoo", "acme/own"}) Put(id);
  const char* none = "ADAPTER_NOT_FOUND";
  struct Case {
    const char* name;
    const char* found[4];  // by caller
  };
  const Case cases[] = {
      {"foo", {"foo", "acme/foo", "other/foo", "foo"}},
      {"zoo", {"zoo", "zoo", "zoo", "zoo"}},
      {"own", {none, "acme/own", none, none}},
      {"acme/foo", {"acme/foo", "acme/foo", none, none}},
      {"other/foo", {"other/foo", none, "other/foo", none}},
      {"acme/zoo", {none, none, none, none}},
      {"/foo", {none, none, none, none}},
      {"third/foo", {none, none, none, none}},
  };
  for (const Case& c : cases) {
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(Found(kCallers[i], c.name), c.found[i]) << c.name << " for " << kCallers[i];
    }
  }
  EXPECT_THAT(Listed(""), ElementsAre("acme/foo", "acme/own", "foo", "other/foo", "zoo"));
  EXPECT_THAT(Listed("acme"), ElementsAre("acme/foo", "acme/own", "foo", "zoo"));
  EXPECT_THAT(Listed("other"), ElementsAre("foo", "other/foo", "zoo"));
  EXPECT_THAT(Listed("third"), ElementsAre("foo", "zoo"));
  EXPECT_EQ(directory_.Count(""), 5);
  EXPECT_EQ(directory_.Count("acme"), 4);
  EXPECT_EQ(directory_.Count("third"), 2);
}

TEST_F(DirectoryTest, EachChangesItsOwnOnly) {
  for (const char* id : {"acme/foo", "other/foo", "foo", "zoo"}) Put(id);
  EXPECT_EQ(ForChange("", "foo"), "foo");
  EXPECT_EQ(ForChange("", "acme/foo"), "acme/foo");
  EXPECT_EQ(ForChange("acme", "foo"), "acme/foo");
  EXPECT_EQ(ForChange("acme", "acme/foo"), "acme/foo");
  EXPECT_EQ(ForChange("acme", "zoo"), "NOT_YOURS");
  EXPECT_EQ(ForChange("third", "foo"), "NOT_YOURS");
  EXPECT_EQ(ForChange("acme", "other/foo"), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(ForChange("acme", "other/absent"), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(ForChange("acme", "foo@1"), "INVALID_FIELD");
}

// Nobody learns from an error whether another's adapter is there.
TEST_F(DirectoryTest, ErrorsAreTheSameWhetherItIsThereOrNot) {
  const auto ask = [this](bool for_change) {
    const AdapterName name = *ParseAdapterName("other/foo", "name");
    const auto info =
        for_change ? directory_.FindForChange("acme", name) : directory_.Find("acme", name);
    return info.status();
  };
  const absl::Status absent = ask(false), absent_for_change = ask(true);
  PutAliases("other/foo", {"bar"});
  EXPECT_EQ(ask(false), absent);
  EXPECT_EQ(ask(true), absent_for_change);
  EXPECT_EQ(GetErrorDetail(absent).resource_name, "adapters/other/foo");
  EXPECT_EQ(Found("acme", "bar"), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(Found("acme", "other/bar"), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(Found("other", "bar"), "other/foo");
  EXPECT_EQ(Found("", "other/bar"), "other/foo");
}

TEST_F(DirectoryTest, OwnNamesGoBeforeOwnAliasesBeforePublicOnes) {
  PutAliases("shared", {"x"});
  EXPECT_EQ(Found("acme", "x"), "shared");  // a public alias
  Put("x");
  EXPECT_EQ(Found("acme", "x"), "x");  // a public name
  PutAliases("acme/a", {"x"});
  EXPECT_EQ(Found("acme", "x"), "acme/a");  // its own alias
  EXPECT_EQ(Found("other", "x"), "x");
  Put("acme/x");
  EXPECT_EQ(Found("acme", "x"), "acme/x");  // its own name
  EXPECT_EQ(Found("", "x"), "x");
  EXPECT_EQ(directory_.AliasHolder("acme", "x"), "acme/a");
  // What was hidden shows again.
  directory_.Erase("acme/x");
  EXPECT_EQ(Found("acme", "x"), "acme/a");
  directory_.Erase("acme/a");
  directory_.Erase("x");
  EXPECT_EQ(Found("acme", "x"), "shared");
}

TEST_F(DirectoryTest, AnAliasLeadsToWhoNamedItLast) {
  PutAliases("a", {"x", "y"});
  PutAliases("b", {"x"});
  EXPECT_EQ(Found("", "x"), "b");
  EXPECT_EQ(Found("", "y"), "a");
  PutAliases("a", {"y"});  // its old claim must not take "x" away from "b"
  EXPECT_EQ(Found("", "x"), "b");
  directory_.Erase("a");
  EXPECT_EQ(Found("", "y"), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(Found("", "x"), "b");
  PutAliases("b", {});
  EXPECT_EQ(Found("", "x"), "ADAPTER_NOT_FOUND");
}

TEST_F(DirectoryTest, KeptVersionsAreFoundByNumber) {
  directory_.Put({.current = Version("foo", 5),
                  .kept = {Version("foo", 4), Version("foo", 2, 1, /*fits=*/false)},
                  .settings = ShareSettings({.aliases = {"bar"}}),
                  .revision = 9});
  const auto version = [this](std::string_view name) -> int64_t {
    const auto info = directory_.Find("", *ParseAdapterName(name, "name"));
    if (!info.ok()) return -1;
    EXPECT_EQ(info->etag(), "5-9") << "an etag is the adapter's, whichever version is asked for";
    EXPECT_EQ(info->is_current(), info->version->version == 5);
    return info->version->version;
  };
  EXPECT_EQ(version("foo"), 5);
  EXPECT_EQ(version("foo@5"), 5);
  EXPECT_EQ(version("foo@4"), 4);
  EXPECT_EQ(version("bar@4"), 4);
  const absl::Status gone = directory_.Find("", *ParseAdapterName("bar@3", "name")).status();
  EXPECT_TRUE(absl::IsNotFound(gone));
  EXPECT_EQ(GetErrorDetail(gone).reason, "VERSION_NOT_FOUND");
  EXPECT_EQ(GetErrorDetail(gone).resource_name, "adapters/foo@3");
  EXPECT_EQ(version("foo@2"), -1) << "it does not fit the base model";
}

TEST_F(DirectoryTest, PinnedPagesAreAddedUp) {
  Put("a", {.pinned = true}, 3);
  Put("b", {.pinned = true}, 4);
  Put("c", {}, 100);
  EXPECT_EQ(directory_.pinned_pages(), 7u);
  Put("a", {.pinned = true}, 5);
  EXPECT_EQ(directory_.pinned_pages(), 9u);
  Put("b", {}, 4);
  EXPECT_EQ(directory_.pinned_pages(), 5u);
  directory_.Erase("a");
  EXPECT_EQ(directory_.pinned_pages(), 0u);
}

// Against a plain list of ids.
TEST_F(DirectoryTest, ListsAndCountsAgreeWithAPlainList) {
  std::mt19937 random(5);
  std::set<std::string> ids;
  for (int round = 0; round < 2000; ++round) {
    const char* owner = kCallers[random() % 4];
    const std::string id =
        AdapterIdIn(owner, fmt::format("{}{}", random() % 2 == 0 ? "b." : "z", random() % 20));
    if (random() % 3 == 0) {
      directory_.Erase(id);
      ids.erase(id);
    } else {
      Put(id);
      ids.insert(id);
    }
    const char* caller = kCallers[random() % 4];
    std::vector<std::string> expected;
    for (const std::string& one : ids) {
      if (MaySee(caller, one)) expected.push_back(one);
    }
    ASSERT_EQ(Listed(caller), expected) << "for " << caller;
    ASSERT_EQ(directory_.Count(caller), static_cast<int>(expected.size()));
  }
}

}  // namespace
}  // namespace lorad
