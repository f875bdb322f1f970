// Settings, aliases that move, and pins within their limit.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "memory/base/error_detail.h"
#include "server/adapter_catalog.h"
#include "tests/unit/server/catalog_fixture.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr SettingsMask kAliasesOnly = {false, false, false, true};
constexpr SettingsMask kPinnedOnly = {false, false, true, false};

class CatalogSettingsTest : public CatalogTest {
 protected:
  absl::Status SetAliases(const std::string& name, std::vector<std::string> aliases) {
    return catalog_->Update("", name, {.aliases = std::move(aliases)}, kAliasesOnly, "").status();
  }
  absl::Status Pin(const std::string& name, bool pinned = true) {
    return catalog_->Update("", name, {.pinned = pinned}, kPinnedOnly, "").status();
  }
  std::vector<std::string> AliasesOf(const std::string& name) {
    return catalog_->Get("", name)->settings->aliases;
  }
  std::string Resolved(const std::string& name) {
    const auto version = catalog_->Resolve("", name);
    return version.ok() ? (*version)->name : ReasonOf(version.status());
  }
};

TEST_F(CatalogSettingsTest, UpdateChangesWhatItNamesAndIsDurable) {
  Open();
  const AdapterInfo made =
      Put("foo", {}, AdapterSettings{.labels = {{"a", "b"}}, .description = "old"});
  TakeEvents();
  const auto changed =
      catalog_->Update("", "foo", {.description = "new"}, {false, true, false, false}, "");
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->version, made.version) << "no new version";
  EXPECT_EQ(changed->settings->description, "new");
  EXPECT_EQ(changed->settings->labels.at("a"), "b");
  EXPECT_NE(changed->etag(), made.etag());
  EXPECT_THAT(TakeEvents(), ElementsAre("changed foo"));
  // What changes nothing is no change.
  EXPECT_EQ(catalog_->Update("", "foo", *changed->settings, {}, "")->etag(), changed->etag());
  EXPECT_THAT(TakeEvents(), IsEmpty());
  Open();
  EXPECT_EQ(catalog_->Get("", "foo")->settings->description, "new");
  EXPECT_EQ(catalog_->Get("", "foo")->etag(), changed->etag());
  EXPECT_EQ(ReasonOf(catalog_->Update("", "bar", {}, {}, "").status()), "ADAPTER_NOT_FOUND");
}

TEST_F(CatalogSettingsTest, AReplacementKeepsSettingsUnlessItBringsOthers) {
  Open();
  const AdapterSettings settings{.labels = {{"a", "b"}}};
  Put("foo", {.value = 1}, settings);
  EXPECT_EQ(*Put("foo", {.value = 2}).settings, settings);
  EXPECT_EQ(*Put("foo", {.value = 3}, AdapterSettings{.description = "x"}).settings,
            AdapterSettings{.description = "x"});
  EXPECT_EQ(*Put("foo", {.value = 4}, AdapterSettings{}).settings, AdapterSettings());
  Open();
  EXPECT_EQ(*catalog_->Get("", "foo")->settings, AdapterSettings());
}

TEST_F(CatalogSettingsTest, AnAliasStandsForItsAdapterEverywhere) {
  Open();
  Put("foo", {.value = 1}, AdapterSettings{.aliases = {"prod"}});
  EXPECT_EQ(Resolved("prod"), "foo");
  EXPECT_EQ(Resolved("adapters/prod@1"), "foo");
  Put("foo", {.value = 2});
  EXPECT_EQ((*catalog_->Resolve("", "prod"))->version, 2);
  EXPECT_TRUE(
      catalog_->Update("", "prod", {.description = "x"}, {false, true, false, false}, "").ok());
  EXPECT_EQ(catalog_->Rollback("", "prod", 0, "")->id(), "foo");
  EXPECT_EQ(catalog_->Versions("", "prod")->size(), 3u);
  EXPECT_EQ(*catalog_->Delete("", "prod", ""), "foo");
  EXPECT_EQ(Resolved("prod"), "ADAPTER_NOT_FOUND");
}

TEST_F(CatalogSettingsTest, AnAliasMovesToWhoNamesItLast) {
  Open();
  Put("blue", {.value = 1}, AdapterSettings{.aliases = {"prod", "stable"}});
  Put("green", {.value = 2});
  const std::string before = catalog_->Get("", "blue")->etag();
  TakeEvents();
  ASSERT_TRUE(SetAliases("green", {"prod"}).ok());
  EXPECT_EQ(Resolved("prod"), "green");
  EXPECT_THAT(AliasesOf("blue"), ElementsAre("stable"));
  EXPECT_NE(catalog_->Get("", "blue")->etag(), before) << "its settings changed";
  EXPECT_THAT(TakeEvents(), ElementsAre("changed green", "changed blue"));
  // Also by a new adapter, and by a replacement.
  Put("red", {.value = 3}, AdapterSettings{.aliases = {"stable", "prod"}});
  EXPECT_THAT(AliasesOf("blue"), IsEmpty());
  EXPECT_THAT(AliasesOf("green"), IsEmpty());
  Put("blue", {.value = 4}, AdapterSettings{.aliases = {"stable"}});
  EXPECT_EQ(Resolved("stable"), "blue");
  EXPECT_THAT(AliasesOf("red"), ElementsAre("prod"));
  Open();
  EXPECT_THAT(report_, IsEmpty());
  EXPECT_EQ(Resolved("prod"), "red");
  EXPECT_EQ(Resolved("stable"), "blue");
  EXPECT_THAT(AliasesOf("green"), IsEmpty());
}

TEST_F(CatalogSettingsTest, TenantsHaveAliasesOfTheirOwn) {
  Open();
  Put("foo", {.value = 1}, AdapterSettings{.aliases = {"prod"}});
  Put("acme/foo", {.value = 2}, AdapterSettings{.aliases = {"prod"}});
  EXPECT_EQ((*catalog_->Resolve("", "prod"))->name, "foo");
  EXPECT_EQ((*catalog_->Resolve("acme", "prod"))->name, "acme/foo");
  EXPECT_EQ((*catalog_->Resolve("", "acme/prod"))->name, "acme/foo");
  EXPECT_EQ((*catalog_->Resolve("other", "prod"))->name, "foo");
}

TEST_F(CatalogSettingsTest, ANameOfAnAdapterIsNoAlias) {
  Open();
  Put("foo", {.value = 1});
  Put("bar", {.value = 2});
  for (const char* alias : {"bar", "foo"}) {
    const absl::Status refused = SetAliases("foo", {"fine", alias});
    EXPECT_TRUE(absl::IsAlreadyExists(refused)) << refused;
    EXPECT_EQ(ReasonOf(refused), "ADAPTER_EXISTS");
    EXPECT_EQ(GetErrorDetail(refused).resource_name, std::string("adapters/") + alias);
  }
  EXPECT_EQ(
      ReasonOf(Create({.id = "new", .settings = AdapterSettings{.aliases = {"bar"}}}).status()),
      "ADAPTER_EXISTS");
  EXPECT_FALSE(catalog_->Get("", "new").ok()) << "nothing is created that is refused";
  EXPECT_THAT(AliasesOf("foo"), IsEmpty());
  // An adapter that takes an alias's name hides it, and the settings stay changeable.
  ASSERT_TRUE(SetAliases("foo", {"baz"}).ok());
  Put("baz", {.value = 3});
  EXPECT_EQ(Resolved("baz"), "baz");
  EXPECT_TRUE(SetAliases("foo", {"baz", "more"}).ok());
  ASSERT_TRUE(catalog_->Delete("", "baz", "").ok());
  EXPECT_EQ(Resolved("baz"), "foo");
}

// A kill between the two writes of a move leaves both adapters with the alias on disk.
TEST_F(CatalogSettingsTest, AfterACrashAnAliasIsWhereItWasPutLast) {
  Open();
  Put("a", {.value = 1});
  Put("b", {.value = 2});
  Put("c", {.value = 3});
  const auto write = [this](const char* id, std::vector<std::string> aliases, int64_t sequence) {
    const auto text =
        SettingsToText({.settings = {.aliases = std::move(aliases)}, .sequence = sequence});
    ASSERT_TRUE(store_->UpdateSettings(id, *text).ok());
  };
  write("a", {"x", "y"}, 20);
  write("b", {"x"}, 21);
  write("c", {"y"}, 19);
  Open();
  EXPECT_EQ(Resolved("x"), "b");
  EXPECT_EQ(Resolved("y"), "a");
  EXPECT_THAT(AliasesOf("a"), ElementsAre("y"));
  EXPECT_THAT(AliasesOf("b"), ElementsAre("x"));
  EXPECT_THAT(AliasesOf("c"), IsEmpty());
  // What is written next comes after all of them.
  ASSERT_TRUE(SetAliases("c", {"x"}).ok());
  write("b", {"x"}, 21);
  Open();
  EXPECT_EQ(Resolved("x"), "c");
}

TEST_F(CatalogSettingsTest, AnAliasMovesEvenIfItsOldOwnersSettingsCannotBeWritten) {
  int settings_written = 0;
  bool full = false;
  // The settings file is written under another name first: it comes to its place by a rename.
  disk_hook_ = [&](std::string_view operation, const std::filesystem::path& path) {
    const bool write = operation == "create" && path.parent_path().filename() == "staging";
    return full && write && ++settings_written > 1 ? ENOSPC : 0;
  };
  Open();
  Put("blue", {.value = 1}, AdapterSettings{.aliases = {"prod"}});
  Put("green", {.value = 2});
  full = true;
  EXPECT_TRUE(SetAliases("green", {"prod"}).ok());
  EXPECT_GE(settings_written, 2) << "nothing was refused";
  EXPECT_EQ(Resolved("prod"), "green");
  EXPECT_THAT(AliasesOf("blue"), IsEmpty());
  full = false;
  Open();
  EXPECT_EQ(Resolved("prod"), "green");
  EXPECT_THAT(AliasesOf("blue"), IsEmpty());
  EXPECT_THAT(AliasesOf("green"), ElementsAre("prod"));
}

TEST_F(CatalogSettingsTest, PinnedAdaptersStayWithinTheirPages) {
  Open();
  const uint32_t pages = Put("a", {.rank = 16, .value = 1}).version->pages;
  Put("b", {.rank = 16, .value = 2});
  Put("c", {.rank = 16, .value = 3});
  max_pinned_pages_ = 2 * pages;
  Open();
  EXPECT_TRUE(Pin("a").ok());
  EXPECT_TRUE(Pin("b").ok());
  const absl::Status refused = Pin("c");
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(ReasonOf(refused), "PINNED_TOO_MUCH");
  EXPECT_FALSE(catalog_->Get("", "c")->settings->pinned);
  EXPECT_EQ(ReasonOf(Create({.id = "d", .settings = AdapterSettings{.pinned = true}}).status()),
            "PINNED_TOO_MUCH");
  // Room is made by unpinning and by deleting.
  EXPECT_TRUE(Pin("a", false).ok());
  EXPECT_TRUE(Pin("c").ok());
  ASSERT_TRUE(catalog_->Delete("", "b", "").ok());
  EXPECT_TRUE(Pin("a").ok());
  // A pinned adapter may not grow beyond, and may be changed otherwise.
  EXPECT_EQ(ReasonOf(Create({.id = "a", .replace = true}, {.rank = 32}).status()),
            "PINNED_TOO_MUCH");
  EXPECT_TRUE(Create({.id = "a", .replace = true}, {.rank = 16, .value = 9}).ok());
  EXPECT_TRUE(catalog_->Rollback("", "a", 0, "").ok());
}

TEST_F(CatalogSettingsTest, APinnedAdapterMayTakeAllThatPinnedOnesMay) {
  Open();
  max_pinned_pages_ = Put("a", {.rank = 32}).version->pages;
  Put("a", {.rank = 16});
  Open();
  ASSERT_TRUE(Pin("a").ok());
  const auto grown = Create({.id = "a", .replace = true}, {.rank = 32, .value = 2});
  EXPECT_TRUE(grown.ok()) << "the version that it replaces counts no more: " << grown.status();
}

TEST_F(CatalogSettingsTest, ARollbackMayNotGrowAPinnedAdapterBeyond) {
  Open();
  Put("a", {.rank = 32});
  max_pinned_pages_ = Put("a", {.rank = 2}).version->pages;
  Open();
  ASSERT_TRUE(Pin("a").ok());
  EXPECT_EQ(ReasonOf(catalog_->Rollback("", "a", 0, "").status()), "PINNED_TOO_MUCH");
  EXPECT_EQ(catalog_->Get("", "a")->version->version, 2);
}

TEST_F(CatalogSettingsTest, TheEngineIsToldOfPins) {
  Open();
  const AdapterVersionPtr first = Put("a", {.value = 1}, AdapterSettings{.pinned = true}).version;
  EXPECT_THAT(TakeEvents(), ElementsAre("pin a@1", "changed a"));
  const AdapterVersionPtr second = Put("a", {.value = 2}).version;
  EXPECT_THAT(TakeEvents(), ElementsAre("unpin a@1", fmt::format("retire {}", first->id), "pin a@2",
                                        "changed a"));
  ASSERT_TRUE(
      catalog_->Update("", "a", {.description = "x"}, {false, true, false, false}, "").ok());
  EXPECT_THAT(TakeEvents(), ElementsAre("changed a")) << "pinned before and after";
  ASSERT_TRUE(Pin("a", false).ok());
  EXPECT_THAT(TakeEvents(), ElementsAre("unpin a@2", "changed a"));
  ASSERT_TRUE(Pin("a").ok());
  TakeEvents();
  ASSERT_TRUE(catalog_->Delete("", "a", "").ok());
  EXPECT_THAT(TakeEvents(),
              ElementsAre("unpin a@2", fmt::format("retire {}", second->id), "changed a"));
}

TEST_F(CatalogSettingsTest, PinsHoldAfterARestartAsFarAsTheyFit) {
  Open();
  const uint32_t pages =
      Put("a", {.rank = 16, .value = 1}, AdapterSettings{.pinned = true}).version->pages;
  Put("b", {.rank = 16, .value = 2}, AdapterSettings{.pinned = true});
  Put("c", {.rank = 16, .value = 3});
  TakeEvents();
  Open();
  EXPECT_THAT(TakeEvents(), ElementsAre("pin a@1", "pin b@1"));
  EXPECT_THAT(report_, IsEmpty());
  max_pinned_pages_ = pages;  // the pool became smaller
  Open();
  EXPECT_THAT(TakeEvents(), ElementsAre("pin a@1"));
  ASSERT_EQ(report_.size(), 1u);
  EXPECT_TRUE(report_[0].starts_with("b: ")) << report_[0];
  EXPECT_TRUE(catalog_->Get("", "b")->settings->pinned) << "that is still what was asked for";
  EXPECT_EQ(ReasonOf(Pin("c")), "PINNED_TOO_MUCH");
}

}  // namespace
}  // namespace lorad
