#include "client/loractl/sync_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/client/scratch_directory.h"

namespace lorad::loractl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class SyncDirectoryTest : public ::testing::Test {
 protected:
  // "id" of what can be used, "id: why" of what cannot.
  std::vector<std::string> Read() {
    const auto adapters = directory_.Read();
    EXPECT_TRUE(adapters.ok()) << adapters.status();
    std::vector<std::string> out;
    for (const LocalAdapter& a : *adapters) {
      out.push_back(a.error.ok() ? a.id : a.id + ": " + std::string(a.error.message()));
    }
    return out;
  }

  ScratchDirectory scratch_;
  SyncDirectory directory_{scratch_.path().string()};
};

TEST_F(SyncDirectoryTest, FindsAdaptersOnOneLevelAndTenantsOnTwo) {
  scratch_.WriteAdapter("pirate", "w");
  scratch_.WriteAdapter("acme/foo", "w");
  scratch_.WriteAdapter("pirate/inner", "not an adapter: pirate has files itself");
  scratch_.WriteAdapter("acme/deep/too", "not one either");
  scratch_.Write("README.md", "a file");
  fs::create_directories(scratch_.path() / "empty" / "emptier");
  EXPECT_THAT(Read(), ElementsAre("acme/foo", "pirate"));
}

TEST_F(SyncDirectoryTest, HashesFilesAndReadsSettings) {
  scratch_.WriteAdapter("pirate", "");
  scratch_.Write("pirate/lorad.json", R"({"pinned": true})");
  const auto adapters = directory_.Read();
  ASSERT_TRUE(adapters.ok()) << adapters.status();
  ASSERT_EQ(adapters->size(), 1u);
  const LocalAdapter& adapter = (*adapters)[0];
  EXPECT_EQ(adapter.config_sha256,
            "fd66c57ec3933dd396b22ffd2c904bdbe96a4477c250382ee6265e2d7921fdd8");
  EXPECT_EQ(adapter.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_TRUE(adapter.settings.pinned());
  EXPECT_EQ(adapter.directory, (fs::canonical(scratch_.path()) / "pirate").string());
}

TEST_F(SyncDirectoryTest, WhatIsWrongIsSaidAndStopsNothingElse) {
  scratch_.WriteAdapter("good", "w");
  scratch_.Write("half/adapter_config.json", "{}");
  scratch_.Write("lost/lorad.json", "{}");
  scratch_.WriteAdapter("typo", "w");
  scratch_.Write("typo/lorad.json", R"({"pined": true})");
  scratch_.WriteAdapter("odd", "w");
  fs::create_directories(scratch_.path() / "odd" / "lorad.json");
  EXPECT_THAT(Read(),
              ElementsAre("good", "half: adapter_model.safetensors: not there",
                          "lost: adapter_config.json: not there", "odd: lorad.json: not a file",
                          HasSubstr("typo: lorad.json: \"pined\": no such key")));
}

TEST_F(SyncDirectoryTest, HiddenNamesAreSkipped) {
  scratch_.WriteAdapter(".hidden", "w");
  scratch_.WriteAdapter("acme/.hidden", "w");
  scratch_.WriteAdapter("..2026_01_01", "w");
  EXPECT_THAT(Read(), ElementsAre());
}

// How kubelet mounts a volume: the names are links through ..data, which changes at once.
TEST_F(SyncDirectoryTest, AMountedKubernetesVolumeIsRead) {
  scratch_.WriteAdapter("..2026_01_01/pirate", "old");
  fs::create_directory_symlink("..2026_01_01", scratch_.path() / "..data");
  fs::create_directory_symlink("..data/pirate", scratch_.path() / "pirate");
  const auto before = directory_.Read();
  ASSERT_TRUE(before.ok()) << before.status();
  ASSERT_EQ(before->size(), 1u);
  EXPECT_EQ((*before)[0].id, "pirate");
  EXPECT_THAT((*before)[0].directory, HasSubstr("..2026_01_01/pirate"));

  scratch_.WriteAdapter("..2026_01_02/pirate", "new");
  fs::remove(scratch_.path() / "..data");
  fs::create_directory_symlink("..2026_01_02", scratch_.path() / "..data");
  const auto after = directory_.Read();
  ASSERT_TRUE(after.ok()) << after.status();
  ASSERT_EQ(after->size(), 1u);
  EXPECT_NE((*after)[0].sha256, (*before)[0].sha256);
}

TEST_F(SyncDirectoryTest, LinksThatLeadOutAreNotFollowed) {
  const ScratchDirectory outside;
  outside.WriteAdapter("secret", "w");
  fs::create_directory_symlink(outside.path() / "secret", scratch_.path() / "foo");
  scratch_.WriteAdapter("bar", "w");
  fs::remove(scratch_.path() / "bar" / "adapter_model.safetensors");
  fs::create_symlink(outside.path() / "secret" / "adapter_model.safetensors",
                     scratch_.path() / "bar" / "adapter_model.safetensors");
  fs::create_directory_symlink("nowhere", scratch_.path() / "dangling");
  fs::create_directory_symlink(".", scratch_.path() / "self");
  EXPECT_THAT(Read(), ElementsAre("bar: adapter_model.safetensors: a link to what is not below DIR",
                                  HasSubstr("dangling: cannot be followed"),
                                  "foo: a link to what is not below DIR",
                                  "self: a link to what is not below DIR"));
}

// A sibling whose name begins with DIR's is not below DIR.
TEST_F(SyncDirectoryTest, BelowMeansBelowAndNotBesides) {
  scratch_.WriteAdapter("dir-other/secret", "w");
  fs::create_directories(scratch_.path() / "dir");
  fs::create_directory_symlink("../dir-other/secret", scratch_.path() / "dir" / "foo");
  SyncDirectory directory((scratch_.path() / "dir").string());
  const auto adapters = directory.Read();
  ASSERT_TRUE(adapters.ok()) << adapters.status();
  ASSERT_EQ(adapters->size(), 1u);
  EXPECT_FALSE((*adapters)[0].error.ok());
}

TEST_F(SyncDirectoryTest, TheDirectoryItselfMayBeALink) {
  scratch_.WriteAdapter("real/pirate", "w");
  fs::create_directory_symlink("real", scratch_.path() / "link");
  SyncDirectory directory((scratch_.path() / "link").string());
  const auto adapters = directory.Read();
  ASSERT_TRUE(adapters.ok()) << adapters.status();
  ASSERT_EQ(adapters->size(), 1u);
  EXPECT_TRUE((*adapters)[0].error.ok()) << (*adapters)[0].error;
}

TEST_F(SyncDirectoryTest, TwoAdaptersOfATenantCannotShareAnAlias) {
  for (const char* name : {"a", "b", "acme/c"}) {
    scratch_.WriteAdapter(name, "w");
    scratch_.Write(std::string(name) + "/lorad.json", R"({"aliases": ["x"]})");
  }
  EXPECT_THAT(Read(), ElementsAre("a", "acme/c",
                                  HasSubstr("b: lorad.json: aliases: x is an alias "
                                            "of a")));
}

TEST_F(SyncDirectoryTest, AChangedFileIsHashedAgain) {
  scratch_.WriteAdapter("pirate", "one");
  const auto first = directory_.Read();
  const auto again = directory_.Read();
  scratch_.WriteAdapter("pirate", "other");
  const auto changed = directory_.Read();
  ASSERT_TRUE(first.ok() && again.ok() && changed.ok());
  EXPECT_EQ((*first)[0].sha256, (*again)[0].sha256);
  EXPECT_NE((*first)[0].sha256, (*changed)[0].sha256);
}

TEST_F(SyncDirectoryTest, AnUnreadableDirectoryIsAnError) {
  SyncDirectory directory((scratch_.path() / "gone").string());
  EXPECT_FALSE(directory.Read().ok());
  scratch_.Write("file", "x");
  EXPECT_FALSE(SyncDirectory((scratch_.path() / "file").string()).Read().ok());
}

}  // namespace
}  // namespace lorad::loractl
