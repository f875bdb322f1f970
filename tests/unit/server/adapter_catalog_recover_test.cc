// Starting on what a store holds: noted facts, other machines, damaged and hostile texts.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "memory/base/error_detail.h"
#include "server/adapter_catalog.h"
#include "tests/unit/server/catalog_fixture.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class CatalogRecoverTest : public CatalogTest {
 protected:
  // Stores an adapter past the catalog, with texts of its own.
  void Store(const std::string& id, const Recipe& recipe, std::string facts, std::string settings) {
    auto staged = Stage(recipe);
    ASSERT_TRUE(staged.ok()) << staged.status();
    const auto stored = store_->Commit(*std::move(staged), id,
                                       {.if_exists = IfExists::kReplace,
                                        .facts = std::move(facts),
                                        .settings = std::move(settings)});
    ASSERT_TRUE(stored.ok()) << stored.status();
  }
  std::filesystem::path Weights(const std::string& version) const {
    return folder_.path() / "state/adapters" / version / kAdapterWeightsFile;
  }
  // The store sees no more of a file than its size.
  void Damage(const std::string& version) {
    const auto bytes = std::filesystem::file_size(Weights(version));
    std::ofstream(Weights(version), std::ios::binary) << std::string(bytes, 'x');
  }
};

TEST_F(CatalogRecoverTest, FactsThatHoldSpareReadingTheFiles) {
  Open();
  const AdapterFacts facts = *Put("foo", {.rank = 16}).version->facts;
  Put("foo", {.rank = 4});
  Close();
  Damage("foo/1");  // nobody looks
  Damage("foo/2");
  Open();
  EXPECT_THAT(report_, IsEmpty());
  EXPECT_EQ((*catalog_->Resolve("", "foo@1"))->pages, facts.pages);
  EXPECT_EQ(*(*catalog_->Resolve("", "foo@1"))->facts, facts);
}

TEST_F(CatalogRecoverTest, AdaptersOfOneRecipeShareTheirFacts) {
  Open();
  Put("a", {.value = 1});
  Put("b", {.value = 2});
  Open();
  EXPECT_EQ((*catalog_->Resolve("", "a"))->facts, (*catalog_->Resolve("", "b"))->facts);
}

TEST_F(CatalogRecoverTest, AnotherPageSizeMeansLookingAgain) {
  Open();
  for (int i = 0; i < 20; ++i) Put(fmt::format("a{}", i), {.rank = 16, .value = 1.0f + i});
  Put("a7", {.rank = 2});
  const uint32_t pages = (*catalog_->Resolve("", "a0"))->pages;
  page_bytes_ = 8192;
  Close();
  Damage("a3/1");
  Open();
  EXPECT_EQ(catalog_->Count(""), 19);
  ASSERT_EQ(report_.size(), 1u);
  EXPECT_TRUE(report_[0].starts_with("a3: ")) << report_[0];
  const AdapterVersionPtr version = *catalog_->Resolve("", "a0");
  EXPECT_EQ(version->pages, (pages + 1) / 2);
  EXPECT_EQ(version->facts->max_rank, 16);
  EXPECT_EQ((*catalog_->Resolve("", "a7@1"))->facts->max_rank, 16) << "kept versions too";
  // Facts that were found again are good for a rollback, which copies the old text.
  const auto back = catalog_->Rollback("", "a7", 1, "");
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_NE(back->version->facts, nullptr);
  EXPECT_EQ(back->version->pages, version->pages);
}

TEST_F(CatalogRecoverTest, WhatWasMadeForAnotherModelAnswersAsIfAbsent) {
  Open();
  Put("foo", {.rank = 2});
  model_.hidden_size = 32;
  model_.head_dim = 8;
  Open();
  ASSERT_EQ(report_.size(), 1u);
  EXPECT_TRUE(report_[0].starts_with("foo: ")) << report_[0];
  EXPECT_EQ(catalog_->Count(""), 0);
  EXPECT_EQ(counted_, 0);
  EXPECT_EQ(ReasonOf(catalog_->Get("", "foo").status()), "ADAPTER_NOT_FOUND");
  EXPECT_THAT(VersionsOnDisk(), ElementsAre("foo/1")) << "it is left for the other model";
  // It keeps its name, until somebody replaces it.
  EXPECT_EQ(ReasonOf(Create({.id = "foo"}, {.rank = 3}).status()), "ADAPTER_EXISTS");
  EXPECT_EQ(Put("foo", {.rank = 3}).version->version, 2);
  EXPECT_EQ(ReasonOf(catalog_->Resolve("", "foo@1").status()), "VERSION_NOT_FOUND");
  EXPECT_EQ(catalog_->Versions("", "foo")->size(), 1u);
  EXPECT_EQ(ReasonOf(catalog_->Rollback("", "foo", 1, "").status()), "VERSION_NOT_FOUND");
  EXPECT_EQ(ReasonOf(catalog_->Rollback("", "foo", 0, "").status()), "VERSION_NOT_FOUND");
  // Back on the first model the kept version is of use again, the current one is not.
  model_ = CatalogModel();
  Open();
  EXPECT_EQ(report_.size(), 1u);
  EXPECT_EQ(ReasonOf(catalog_->Get("", "foo").status()), "ADAPTER_NOT_FOUND");
}

TEST_F(CatalogRecoverTest, WhatDoesNotFitCanBeDeletedByWhoOwnsIt) {
  Open();
  Put("foo", {.rank = 2});
  Put("acme/foo", {.rank = 2});
  model_.hidden_size = 32;
  model_.head_dim = 8;
  Open();
  EXPECT_EQ(ReasonOf(catalog_->Delete("other", "acme/foo", "").status()), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(ReasonOf(catalog_->Delete("other", "foo", "").status()), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(*catalog_->Delete("acme", "foo", ""), "acme/foo");
  EXPECT_EQ(ReasonOf(catalog_->Delete("acme", "foo", "").status()), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(*catalog_->Delete("", "foo", ""), "foo");
  EXPECT_THAT(VersionsOnDisk(), IsEmpty());
}

TEST_F(CatalogRecoverTest, ASmallerPoolShowsWhatStillFits) {
  Open();
  Put("big", {.rank = 64});
  Put("small", {.rank = 2});
  pool_pages_ = 8;
  Open();
  EXPECT_EQ(catalog_->Count(""), 1);
  ASSERT_EQ(report_.size(), 1u);
  EXPECT_TRUE(report_[0].starts_with("big: ")) << report_[0];
}

TEST_F(CatalogRecoverTest, HostileFactsAreLookedUpAgain) {
  Open();
  Put("good", {.rank = 16});
  const std::string good = store_->Get("good")->current.facts;
  std::string huge = good;
  const size_t at = huge.find("\"pages\":");
  huge.replace(at, std::string("\"pages\":").size() + 1, "\"pages\":0");
  int n = 0;
  for (const std::string& facts : {std::string(), std::string("x"), std::string(16000, '['),
                                   std::string("{\"for\":\"x\"}"), huge, good.substr(0, 50)}) {
    Store(fmt::format("a{}", n++), {.rank = 16, .value = 1.0f + n}, facts, "");
  }
  Open();
  EXPECT_THAT(report_, IsEmpty());
  for (int i = 0; i < n; ++i) {
    EXPECT_EQ((*catalog_->Resolve("", fmt::format("a{}", i)))->facts,
              (*catalog_->Resolve("", "good"))->facts);
  }
}

TEST_F(CatalogRecoverTest, HostileSettingsCostTheSettingsOnly) {
  Open();
  int n = 0;
  for (const char* settings : {"x", "{}", "[[[[[[[[", R"({"sequence":1,"aliases":["../../etc"]})",
                               R"({"sequence":9223372036854775808})"}) {
    Store(fmt::format("a{}", n++), {.value = 1.0f + n}, "", settings);
  }
  Store("fine", {.value = 50}, "", R"({"sequence":4,"labels":{"a":"b"}})");
  Open();
  EXPECT_EQ(report_.size(), static_cast<size_t>(n));
  EXPECT_EQ(catalog_->Count(""), n + 1);
  for (int i = 0; i < n; ++i) {
    EXPECT_EQ(*catalog_->Get("", fmt::format("a{}", i))->settings, AdapterSettings());
  }
  EXPECT_EQ(catalog_->Get("", "fine")->settings->labels.at("a"), "b");
  // They can be set anew.
  EXPECT_TRUE(catalog_->Update("", "a0", {.description = "mended"}, {}, "").ok());
  Open();
  EXPECT_EQ(catalog_->Get("", "a0")->settings->description, "mended");
}

}  // namespace
}  // namespace lorad
