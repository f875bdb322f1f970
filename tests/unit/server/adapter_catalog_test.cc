// Creating, replacing, rolling back and deleting adapters, on a real store.
#include "server/adapter_catalog.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "memory/base/error_detail.h"
#include "tests/unit/server/catalog_fixture.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr Recipe kOne = {.value = 1}, kTwo = {.value = 2}, kThree = {.value = 3},
                 kFour = {.value = 4};

std::vector<int64_t> Numbers(const std::vector<AdapterInfo>& versions) {
  std::vector<int64_t> numbers;
  for (const AdapterInfo& info : versions) numbers.push_back(info.version->version);
  return numbers;
}

TEST_F(CatalogTest, WhatIsCreatedIsThereAndStays) {
  Open();
  const AdapterInfo made = Put("foo", {.rank = 16}, AdapterSettings{.labels = {{"team", "ops"}}});
  const AdapterVersion& version = *made.version;
  EXPECT_EQ(version.name, "foo");
  EXPECT_EQ(version.version, 1);
  EXPECT_EQ(version.file_bytes, BytesOf({.rank = 16}));
  EXPECT_EQ(version.config_sha256, Declared({.rank = 16})[0].sha256);
  EXPECT_EQ(version.sha256, Declared({.rank = 16})[1].sha256);
  EXPECT_EQ(version.origin_version, 0);
  EXPECT_GE(version.pages, 2u);
  EXPECT_EQ(version.pages, version.facts->pages);
  EXPECT_EQ(version.image_bytes, version.facts->image_bytes);
  EXPECT_THAT(version.facts->ranks, ElementsAre(16));
  EXPECT_THAT(version.facts->target_modules, ElementsAre("q_proj"));
  EXPECT_EQ(version.facts->alpha, 32);
  EXPECT_EQ(version.facts->base_model, "acme/base");
  EXPECT_EQ(counted_, 1);
  EXPECT_THAT(TakeEvents(), ElementsAre("changed foo"));

  const AdapterFacts facts = *version.facts;
  const std::string etag = made.etag();
  Open();
  EXPECT_THAT(report_, IsEmpty());
  EXPECT_EQ(counted_, 1);
  const auto found = catalog_->Get("", "foo");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->etag(), etag);
  EXPECT_EQ(*found->version->facts, facts);
  EXPECT_EQ(found->settings->labels.at("team"), "ops");
  EXPECT_NE(found->version->id, 0u);
}

TEST_F(CatalogTest, TheSameFilesMakeNoNewVersion) {
  Open();
  const AdapterInfo first = Put("foo", kOne);
  TakeEvents();
  for (const bool replace : {false, true}) {
    EXPECT_TRUE(catalog_->HasFiles("foo", Declared(kOne)));
    const auto again = Create({.id = "foo", .replace = replace}, kOne);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->version, first.version);
    EXPECT_EQ(again->etag(), first.etag());
    const auto taken = catalog_->TakeStored({.id = "foo", .replace = replace}, Declared(kOne));
    ASSERT_TRUE(taken.ok()) << taken.status();
    EXPECT_EQ(taken->etag(), first.etag());
  }
  EXPECT_THAT(TakeEvents(), IsEmpty());
  EXPECT_THAT(VersionsOnDisk(), ElementsAre("foo/1"));
  // An adapter of the same files under another name is another adapter.
  EXPECT_NE(Put("bar", kOne).version, first.version);
}

TEST_F(CatalogTest, TheSameFilesWithOtherSettingsChangeTheSettings) {
  Open();
  const AdapterInfo first = Put("foo", kOne);
  const AdapterSettings settings{.description = "better"};
  const auto changed = Create({.id = "foo", .settings = settings}, kOne);
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->version, first.version);
  EXPECT_EQ(*changed->settings, settings);
  EXPECT_NE(changed->etag(), first.etag());
  const auto same = catalog_->TakeStored({.id = "foo", .settings = settings}, Declared(kOne));
  EXPECT_EQ(same->etag(), changed->etag());
  Open();
  EXPECT_EQ(*catalog_->Get("", "foo")->settings, settings);
}

TEST_F(CatalogTest, FilesAreTheSameOnlyIfAllHashesSaySo) {
  Open();
  Put("foo", kOne);
  std::vector<DeclaredFile> files = Declared(kOne);
  files[1].sha256 = "";
  EXPECT_FALSE(catalog_->HasFiles("foo", files)) << "one hash is not known";
  EXPECT_TRUE(catalog_->CheckCreatable({.id = "foo"}, files).ok()) << "they may be the same";
  EXPECT_FALSE(catalog_->HasFiles("foo", Declared(kTwo)));
  EXPECT_FALSE(catalog_->HasFiles("absent", Declared(kOne)));
  EXPECT_FALSE(catalog_->HasFiles("foo", {}));
  files = Declared(kOne);
  EXPECT_FALSE(catalog_->HasFiles("foo", {&files[0], 1}));
  files[1] = files[0];
  EXPECT_FALSE(catalog_->HasFiles("foo", files));
  const auto gone = catalog_->TakeStored({.id = "foo"}, Declared(kTwo));
  EXPECT_TRUE(absl::IsAborted(gone.status())) << gone.status();
  EXPECT_EQ(ReasonOf(gone.status()), "ADAPTER_CHANGED");
}

TEST_F(CatalogTest, NothingIsReplacedUnasked) {
  Open();
  Put("foo", kOne);
  const auto refused = Create({.id = "foo"}, kTwo);
  EXPECT_TRUE(absl::IsAlreadyExists(refused.status())) << refused.status();
  EXPECT_EQ(ReasonOf(refused.status()), "ADAPTER_EXISTS");
  EXPECT_EQ(GetErrorDetail(refused.status()).resource_name, "adapters/foo");
  // Before a byte is sent: by hashes, or by sizes alone.
  std::vector<DeclaredFile> files = Declared({.rank = 3});
  EXPECT_TRUE(absl::IsAlreadyExists(catalog_->CheckCreatable({.id = "foo"}, files)));
  for (DeclaredFile& file : files) file.sha256.clear();
  EXPECT_TRUE(absl::IsAlreadyExists(catalog_->CheckCreatable({.id = "foo"}, files)));
  // Files of the same sizes have to come first.
  auto staged = Stage(kTwo);
  ASSERT_TRUE(staged.ok());
  EXPECT_TRUE(absl::IsAlreadyExists(catalog_->Commit(*std::move(staged), {.id = "foo"}).status()));
  EXPECT_THAT(VersionsOnDisk(), ElementsAre("foo/1"));
}

TEST_F(CatalogTest, AReplacedVersionIsKeptAndGivesUpItsPages) {
  Open();
  const AdapterVersionPtr old = watched_ = Put("foo", kOne).version;
  TakeEvents();
  EXPECT_FALSE(old->activity->superseded.load());
  const AdapterInfo now = Put("foo", kTwo);
  EXPECT_EQ(now.version->version, 2);
  EXPECT_NE(now.version->id, old->id);
  EXPECT_THAT(TakeEvents(), ElementsAre(fmt::format("retire {}", old->id), "changed foo"));
  EXPECT_TRUE(old->activity->superseded.load());
  EXPECT_FALSE(old->activity->dropped.load());
  EXPECT_EQ(*catalog_->Resolve("", "foo"), now.version);
  EXPECT_EQ(*catalog_->Resolve("", "foo@2"), now.version);
  EXPECT_EQ(*catalog_->Resolve("", "adapters/foo@1"), old);
  const auto versions = catalog_->Versions("", "foo");
  ASSERT_TRUE(versions.ok());
  EXPECT_THAT(Numbers(*versions), ElementsAre(2, 1));
  EXPECT_EQ((*versions)[1].etag(), now.etag());
  EXPECT_EQ(ReasonOf(catalog_->Resolve("", "foo@3").status()), "VERSION_NOT_FOUND");
  EXPECT_EQ(ReasonOf(catalog_->Versions("", "foo@1").status()), "INVALID_FIELD");
}

TEST_F(CatalogTest, AVersionBeyondThoseKeptGoesWithItsLastHolder) {
  Open();
  AdapterVersionPtr first = Put("foo", kOne).version;
  Put("foo", kTwo);
  Put("foo", kThree);
  RunLater();
  EXPECT_FALSE(first->activity->dropped.load());
  EXPECT_THAT(VersionsOnDisk(), ElementsAre("foo/1", "foo/2", "foo/3"));
  Put("foo", kFour);
  RunLater();
  EXPECT_TRUE(first->activity->dropped.load());
  EXPECT_THAT(Numbers(*catalog_->Versions("", "foo")), ElementsAre(4, 3, 2));
  EXPECT_EQ(ReasonOf(catalog_->Resolve("", "foo@1").status()), "VERSION_NOT_FOUND");
  // Whoever runs on it may still load it.
  EXPECT_THAT(VersionsOnDisk(), ElementsAre("foo/1", "foo/2", "foo/3", "foo/4"));
  first.reset();
  EXPECT_THAT(VersionsOnDisk(), ElementsAre("foo/1", "foo/2", "foo/3", "foo/4"))
      << "files are not touched by whoever lets go";
  RunLater();
  EXPECT_THAT(VersionsOnDisk(), ElementsAre("foo/2", "foo/3", "foo/4"));
}

TEST_F(CatalogTest, WithoutKeptVersionsFilesGoAtOnce) {
  keep_versions_ = 0;
  Open();
  Put("foo", kOne);
  Put("foo", kTwo);
  RunLater();
  EXPECT_THAT(VersionsOnDisk(), ElementsAre("foo/2"));
  EXPECT_THAT(Numbers(*catalog_->Versions("", "foo")), ElementsAre(2));
  EXPECT_EQ(ReasonOf(catalog_->Rollback("", "foo", 0, "").status()), "VERSION_NOT_FOUND");
}

TEST_F(CatalogTest, RollbackMakesANewVersionOfTheOldFiles) {
  Open();
  const AdapterInfo first = Put("foo", {.rank = 16}, AdapterSettings{.description = "mine"});
  Put("foo", kTwo);
  const AdapterVersionPtr third = Put("foo", kThree).version;
  TakeEvents();
  const auto back = catalog_->Rollback("", "foo", 1, "");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->version->version, 4);
  EXPECT_EQ(back->version->origin_version, 1);
  EXPECT_EQ(back->version->sha256, first.version->sha256);
  EXPECT_EQ(back->version->facts, first.version->facts);
  EXPECT_EQ(back->version->pages, first.version->pages);
  EXPECT_EQ(back->settings->description, "mine");
  EXPECT_THAT(TakeEvents(), ElementsAre(fmt::format("retire {}", third->id), "changed foo"));
  EXPECT_TRUE(third->activity->superseded.load());
  EXPECT_THAT(Numbers(*catalog_->Versions("", "foo")), ElementsAre(4, 3, 2));

  const auto newest = catalog_->Rollback("", "adapters/foo", 0, "");
  ASSERT_TRUE(newest.ok()) << newest.status();
  EXPECT_EQ(newest->version->origin_version, 3);
  EXPECT_EQ(newest->version->sha256, third->sha256);
  for (const int64_t version : {5, 1, 99}) {  // current, dropped, never there
    const absl::Status gone = catalog_->Rollback("", "foo", version, "").status();
    EXPECT_EQ(ReasonOf(gone), "VERSION_NOT_FOUND") << version;
  }
  EXPECT_EQ(GetErrorDetail(catalog_->Rollback("", "foo", -1, "").status()).field, "version");
  Open();
  EXPECT_THAT(report_, IsEmpty());
  EXPECT_EQ(catalog_->Get("", "foo")->version->origin_version, 3);
  EXPECT_THAT(Numbers(*catalog_->Versions("", "foo")), ElementsAre(5, 4, 3));
}

TEST_F(CatalogTest, DeleteTakesAllVersionsAway) {
  Open();
  AdapterVersionPtr held = Put("foo", kOne).version;
  const AdapterVersionPtr current = watched_ = Put("foo", kTwo).version;
  Put("bar", kOne);
  TakeEvents();
  const auto deleted = catalog_->Delete("", "adapters/foo", "");
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(*deleted, "foo");
  EXPECT_EQ(counted_, 1);
  EXPECT_THAT(TakeEvents(), ElementsAre(fmt::format("retire {}", current->id), "changed foo"));
  EXPECT_TRUE(current->activity->superseded.load() && current->activity->dropped.load());
  EXPECT_TRUE(held->activity->dropped.load());
  for (const char* name : {"foo", "foo@1"}) {
    EXPECT_EQ(ReasonOf(catalog_->Resolve("", name).status()), "ADAPTER_NOT_FOUND") << name;
  }
  EXPECT_EQ(ReasonOf(catalog_->Delete("", "foo", "").status()), "ADAPTER_NOT_FOUND");
  held.reset();
  watched_.reset();
  RunLater();
  EXPECT_THAT(VersionsOnDisk(), ElementsAre("bar/1", "foo/2"));  // `current` is still held
  Open();
  EXPECT_THAT(VersionsOnDisk(), ElementsAre("bar/1"));
  EXPECT_EQ(Put("foo", kOne).version->version, 3) << "numbers are not used again";
}

TEST_F(CatalogTest, EveryChangeHeedsTheEtag) {
  Open();
  Put("foo", kOne);
  const std::string old = Put("foo", kTwo).etag();
  const AdapterInfo now = *catalog_->Update("", "foo", {.description = "x"}, {}, old);
  EXPECT_NE(now.etag(), old);
  const auto expect_mismatch = [](const absl::Status& status) {
    EXPECT_TRUE(absl::IsAborted(status)) << status;
    EXPECT_EQ(ReasonOf(status), "ETAG_MISMATCH");
    EXPECT_EQ(GetErrorDetail(status).resource_name, "adapters/foo");
  };
  for (const std::string& etag :
       {old, std::string("nonsense"), std::string("2-"), now.etag() + " "}) {
    SCOPED_TRACE(etag);
    expect_mismatch(catalog_->Update("", "foo", {}, {}, etag).status());
    expect_mismatch(catalog_->Rollback("", "foo", 0, etag).status());
    expect_mismatch(catalog_->Delete("", "foo", etag).status());
    const NewAdapter wanted{.id = "foo", .replace = true, .etag = etag};
    expect_mismatch(Create(wanted, kThree).status());
    expect_mismatch(Create(wanted, kTwo).status());  // the same files, but not of that state
    expect_mismatch(catalog_->TakeStored(wanted, Declared(kTwo)).status());
    expect_mismatch(catalog_->CheckCreatable(wanted, Declared(kThree)));
    auto staged = Stage(kThree);
    expect_mismatch(catalog_->Commit(*std::move(staged), wanted).status());
  }
  EXPECT_EQ(catalog_->Get("", "foo")->etag(), now.etag());
  const auto replaced = Create({.id = "foo", .replace = true, .etag = now.etag()}, kThree);
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  const auto back = catalog_->Rollback("", "foo", 0, replaced->etag());
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(catalog_->Delete("", "foo", back->etag()).ok());
  // An adapter that is gone is not what the etag says either.
  expect_mismatch(Create({.id = "foo", .etag = back->etag()}, kOne).status());
}

TEST_F(CatalogTest, AnEtagNeverComesBack) {
  Open();
  std::set<std::string> etags;
  for (int round = 0; round < 3; ++round) {
    etags.insert(Put("foo", kOne).etag());
    etags.insert(catalog_->Update("", "foo", {.description = "x"}, {}, "")->etag());
    etags.insert(catalog_->Update("", "foo", {}, {}, "")->etag());
    etags.insert(Put("foo", kTwo).etag());
    etags.insert(catalog_->Rollback("", "foo", 0, "")->etag());
    ASSERT_TRUE(catalog_->Delete("", "foo", "").ok());
    Open();
  }
  EXPECT_EQ(etags.size(), 15u);
}

TEST_F(CatalogTest, WhatDoesNotFitIsRefusedAndLeavesNothing) {
  Open();
  Put("foo", kOne);
  pool_pages_ = 8;
  Open();
  EXPECT_EQ(ReasonOf(Create({.id = "big"}, {.rank = 64}).status()), "LARGER_THAN_POOL");
  model_.hidden_size = 128;
  Open();
  const Recipe other_base = {.value = 7};
  model_.hidden_size = 64;
  const auto staged_for_other = Stage(other_base);
  model_.hidden_size = 128;
  ASSERT_TRUE(staged_for_other.ok());
  RunLater();
  EXPECT_EQ(catalog_->Count(""), 0);
}

TEST_F(CatalogTest, PathsAreReadBelowTheRootsOnly) {
  Open();
  const std::filesystem::path inside = WriteFolder(kOne);
  const std::filesystem::path outside = folder_.path() / "elsewhere";
  std::filesystem::create_directories(outside);
  std::filesystem::create_directory_symlink(outside, folder_.path() / "root/link");
  const auto create = [this](const std::filesystem::path& path) {
    return catalog_->CreateFromPath(path, {.id = "foo"});
  };
  for (const std::filesystem::path& path :
       {outside, folder_.path() / "root/link", folder_.path() / "root/absent", folder_.path(),
        folder_.path() / "root/../elsewhere"}) {
    EXPECT_EQ(ReasonOf(create(path).status()), "PATH_NOT_ALLOWED") << path;
  }
  for (const char* path : {"", "root/0"}) {
    EXPECT_EQ(GetErrorDetail(create(path).status()).field, "path") << path;
  }
  const auto made = create(inside);
  ASSERT_TRUE(made.ok()) << made.status();
  const auto again = create(inside);
  ASSERT_TRUE(again.ok()) << "the same files: " << again.status();
  EXPECT_EQ(again->version, made->version);
  EXPECT_TRUE(absl::IsAlreadyExists(create(WriteFolder(kTwo)).status()));
  // The operator's own configuration may name any.
  for (const auto& [file, content] : Files(kThree)) folder_.Write("elsewhere/" + file, content);
  EXPECT_TRUE(catalog_->Import(outside, "imported").ok());
}

TEST_F(CatalogTest, ARequestMayNameNoAdapter) {
  tenants_ = TenantTable({{"acme", {.default_adapter = "foo@1"}},
                          {"base", {.default_adapter = "-"}},
                          {"lost", {.default_adapter = "absent"}}},
                         {});
  Open();
  const AdapterVersionPtr open = Put("foo", kOne).version;
  EXPECT_EQ(*catalog_->Resolve("", ""), nullptr);
  EXPECT_EQ(*catalog_->Resolve("other", ""), nullptr);
  EXPECT_EQ(*catalog_->Resolve("base", ""), nullptr);
  EXPECT_EQ(*catalog_->Resolve("acme", ""), open);
  const AdapterVersionPtr own = Put("acme/foo", kTwo).version;
  EXPECT_EQ(*catalog_->Resolve("acme", ""), own);
  for (const char* caller : {"", "acme", "lost"}) {
    EXPECT_EQ(*catalog_->Resolve(caller, "-"), nullptr) << caller;
  }
  EXPECT_EQ(ReasonOf(catalog_->Resolve("lost", "").status()), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(GetErrorDetail(catalog_->Resolve("", "foo@x").status()).field, "adapter");
}

TEST_F(CatalogTest, ImagesAreWrittenFromTheStoredFiles) {
  Open();
  const AdapterVersionPtr version = Put("foo", {.rank = 16}).version;
  auto buffer = backend_->Allocate(page_bytes_ * 8);
  ASSERT_TRUE(buffer.ok());
  const kernels::PageSlab slab{(*buffer)->data(), page_bytes_};
  std::vector<uint32_t> pages;
  for (uint32_t i = 0; i < version->pages; ++i) pages.push_back(7 - i);
  const ImageWriter write = [&](const AdapterImage& planned, auto shares) {
    backend_->PackAdapter(planned.layouts[0], shares[0].factors(), slab, pages);
  };
  const auto image = catalog_->LoadImage(*version, write);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ((*image)->pages(), version->pages);
  EXPECT_EQ((*image)->bytes(), version->image_bytes);
  std::filesystem::resize_file(folder_.path() / "state/adapters/foo/1" / kAdapterWeightsFile, 100);
  const absl::Status damaged = catalog_->LoadImage(*version, write).status();
  EXPECT_TRUE(absl::IsDataLoss(damaged)) << damaged;
  EXPECT_EQ(ReasonOf(damaged), "ADAPTER_CORRUPT");
  EXPECT_EQ(GetErrorDetail(damaged).resource_name, "adapters/foo");
}

}  // namespace
}  // namespace lorad
