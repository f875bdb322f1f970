#include "memory/store_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace lorad {
namespace {

StoredVersion Version(std::string id, int64_t version, uint64_t config, uint64_t weights) {
  // A file's size is a function of its inode, as on a disk.
  return {.id = std::move(id),
          .version = version,
          .config = {.bytes = static_cast<int64_t>(config), .sha256 = "", .inode = config},
          .weights = {.bytes = static_cast<int64_t>(weights), .sha256 = "", .inode = weights},
          .facts = "facts"};
}

TEST(StoreIndex, KeepsVersionsAndLetsTheRestLinger) {
  StoreIndex index(2);
  for (int64_t n = 1; n <= 4; ++n) index.SetCurrent(Version("a", n, 1, 10), "s", n);
  const StoreEntry* entry = index.Find("a");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->last_version, 4);
  EXPECT_EQ(entry->adapter->current.version, 4);
  ASSERT_EQ(entry->adapter->kept.size(), 2u);
  EXPECT_EQ(entry->adapter->kept[0].version, 3);
  EXPECT_EQ(entry->adapter->kept[1].facts, "facts");
  ASSERT_EQ(entry->lingering.size(), 1u);
  EXPECT_EQ(entry->lingering[0].version, 1);
  EXPECT_EQ(entry->lingering[0].facts, "");
  EXPECT_TRUE(index.Keeps("a", 4) && index.Keeps("a", 2));
  EXPECT_FALSE(index.Keeps("a", 1) || index.Keeps("a", 5) || index.Keeps("b", 1));
  EXPECT_EQ(index.FindVersion("a", 1)->version, 1);
  EXPECT_EQ(index.FindVersion("a", 5), nullptr);
  EXPECT_EQ(index.FindVersion("b", 1), nullptr);
}

TEST(StoreIndex, ADeletedAdapterLeavesItsNumber) {
  StoreIndex index(1);
  index.SetCurrent(Version("a", 1, 1, 10), "", 1);
  index.SetCurrent(Version("a", 2, 2, 20), "", 2);
  index.SpendNumber("a", 5);
  index.Delete("a");
  EXPECT_EQ(index.FindAdapter("a"), nullptr);
  EXPECT_EQ(index.Find("a")->removed_through, 5);
  index.Drop("a", 1);
  index.Drop("a", 2);
  EXPECT_EQ(index.bytes(), 0);
  EXPECT_TRUE(index.usage().empty());
  EXPECT_EQ(index.Find("a")->last_version, 5);
}

TEST(StoreIndexDeathTest, ChecksItsBooks) {
  StoreIndex index(1);
  index.SetCurrent(Version("a", 2, 1, 10), "", 1);
  EXPECT_DEATH(index.SetCurrent(Version("a", 2, 1, 10), "", 2), "invariant broken");
  EXPECT_DEATH(index.SetSettings("a", "", 1), "invariant broken");
  EXPECT_DEATH(index.Drop("a", 2), "invariant broken");  // it is current
  EXPECT_DEATH(index.Delete("b"), "invariant broken");
}

// Against sums made anew from the entries after each of many random changes.
TEST(StoreIndex, SumsStayRight) {
  std::mt19937 random(3);
  StoreIndex index(2);
  const std::vector<std::string> ids = {"x", "y", "a/x", "a/y", "b/x"};
  for (int change = 0; change < 3000; ++change) {
    const std::string& id = ids[random() % ids.size()];
    const StoreEntry* entry = index.Find(id);
    const int64_t next = entry == nullptr ? 1 : entry->last_version + 1;
    const bool there = index.FindAdapter(id) != nullptr;
    const auto kind = random() % 8;
    if (kind < 3) {
      index.SetCurrent(Version(id, next, 1 + random() % 5, 10 + random() % 5), "", change + 1);
    } else if (kind == 3) {
      index.AddLingering(Version(id, next, 1 + random() % 5, 10 + random() % 5));
    } else if (kind == 4 && there) {
      index.Delete(id);
    } else if (kind == 5 && there && !entry->adapter->kept.empty()) {
      index.Drop(id, entry->adapter->kept.back().version);
    } else if (entry != nullptr && !entry->lingering.empty()) {
      index.Drop(id, entry->lingering[random() % entry->lingering.size()].version);
    }
    int64_t adapters = 0, bytes = 0;
    std::map<std::string, StoreUsage, std::less<>> usage;
    std::set<uint64_t> inodes;
    const auto add = [&](const StoredVersion& version) {
      usage[std::string(OwnerOf(version.id))].bytes += version.bytes();
      inodes.insert({version.config.inode, version.weights.inode});
    };
    for (const auto& [entry_id, e] : index.entries()) {
      for (const StoredVersion& version : e.lingering) add(version);
      if (!e.adapter) continue;
      ++adapters;
      ++usage[std::string(OwnerOf(entry_id))].adapters;
      add(e.adapter->current);
      for (const StoredVersion& version : e.adapter->kept) add(version);
    }
    for (const uint64_t inode : inodes) bytes += static_cast<int64_t>(inode);
    ASSERT_EQ(index.adapters(), adapters);
    ASSERT_EQ(index.bytes(), bytes);
    ASSERT_EQ(index.usage().size(), usage.size());
    for (const auto& [owner, want] : usage) {
      ASSERT_EQ(index.OwnerUsage(owner).adapters, want.adapters);
      ASSERT_EQ(index.OwnerUsage(owner).bytes, want.bytes);
    }
    for (uint64_t inode = 1; inode < 16; ++inode) {
      ASSERT_EQ(index.HoldsInode(inode), inodes.contains(inode));
    }
  }
}

}  // namespace
}  // namespace lorad
