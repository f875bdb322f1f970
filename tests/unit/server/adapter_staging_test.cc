// Loads through host memory, over a backend whose transfers end when the test says so.
#include "server/adapter_staging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "tests/unit/server/staging_backend.h"

namespace lorad {
namespace {

constexpr size_t kPageBytes = 4096;

AdapterVersionPtr Version(AdapterVersionId id, uint32_t pages) {
  auto version = std::make_shared<AdapterVersion>();
  version->id = id;
  version->name = "a";
  version->pages = pages;
  return version;
}

class AdapterStagingTest : public testing::Test {
 protected:
  void Open(uint32_t blocks, size_t ranks = 1) {
    std::vector<AdapterStaging::Rank> all;
    for (size_t i = 0; i < ranks; ++i) {
      slabs_.emplace_back(200 * kPageBytes);
      all.push_back({.backend = &backend_, .slab = {slabs_.back().data(), kPageBytes}});
    }
    auto made = AdapterStaging::Make(
        {.ranks = std::move(all),
         .bytes = blocks * kPageBytes + 100,
         .clock = &clock_,
         .read = [this](const AdapterVersion& v,
                        const ImageWriter& write) { return Read(v, write); },
         .changed = [this](const HostTierReport& report) { last_report_ = report; }});
    ASSERT_TRUE(made.ok()) << made.status();
    staging_ = *std::move(made);
  }
  std::vector<uint64_t> AfterSteps() const {
    std::vector<uint64_t> steps;
    for (size_t rank = 0; rank < slabs_.size(); ++rank) steps.push_back(7 + rank);
    return steps;
  }
  // An image is pages full of its version's number.
  absl::StatusOr<AdapterImagePtr> Read(const AdapterVersion& version, const ImageWriter& write) {
    ++reads_;
    if (during_read_) during_read_();
    if (!read_status_.ok()) return read_status_;
    auto image = std::make_shared<AdapterImage>();
    image->layouts.resize(slabs_.size());
    // Each rank's share has its own number of modules.
    std::vector<ShardedFactors> shares;
    for (size_t rank = 0; rank < slabs_.size(); ++rank) {
      image->layouts[rank].pages = version.pages - static_cast<uint32_t>(rank);
      image->layouts[rank].image_bytes = version.id + 100 * rank;  // what StageAdapter writes
      image->layouts[rank].modules.resize(rank + 1);
      shares.emplace_back(std::vector<kernels::LowRankFactors>(rank + 1), ModelConfig(), Shard());
    }
    write(*image, shares);
    return image;
  }
  // Loads it and says whether the pages are right once the transfer is done.
  std::shared_ptr<ImageTransfer> Load(const AdapterVersionPtr& version, uint32_t first_page = 0) {
    std::vector<uint32_t> pages(version->pages);
    for (uint32_t i = 0; i < version->pages; ++i) pages[i] = first_page + version->pages - 1 - i;
    auto loaded = staging_->Load(*version, pages, AfterSteps());
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_TRUE(staging_->Validate().ok()) << staging_->Validate();
    if (!loaded.ok()) return nullptr;
    EXPECT_EQ(loaded->image->layouts[0].pages, version->pages);
    return loaded->transfer;
  }
  void LoadWhole(const AdapterVersionPtr& version) {
    EXPECT_TRUE(Load(version)->Wait().ok());
    for (size_t rank = 0; rank < slabs_.size(); ++rank) {
      for (uint32_t i = 0; i < version->pages - rank; ++i) {
        const uint32_t page = version->pages - 1 - i;
        EXPECT_EQ(slabs_[rank][page * kPageBytes],
                  static_cast<std::byte>(version->id + 100 * rank));
      }
    }
  }

  SteadyClock clock_;
  StagingBackend backend_;
  std::vector<std::vector<std::byte>> slabs_;
  absl::Status read_status_;
  std::function<void()> during_read_;
  std::atomic<int> reads_ = 0;
  HostTierReport last_report_;
  std::unique_ptr<AdapterStaging> staging_;
};

TEST_F(AdapterStagingTest, SecondLoadReadsNothing) {
  Open(10);
  const AdapterVersionPtr a = Version(1, 4);
  LoadWhole(a);
  LoadWhole(a);
  EXPECT_EQ(reads_, 1);
  EXPECT_TRUE(staging_->Has(1));
  EXPECT_EQ(a->activity->staged_bytes.load(), 4 * 4096);
  EXPECT_EQ(backend_.allocations, 1) << "memory is pinned once";
  EXPECT_EQ(backend_.last_after_step, 7u);
  const HostTierReport report = staging_->report();
  EXPECT_EQ(report.bytes, 4u * 4096);
  EXPECT_EQ(report.capacity_bytes, 10u * 4096);
  EXPECT_EQ(report.adapters, 1u);
  EXPECT_EQ(report.hits, 1u);
  EXPECT_EQ(report.misses, 1u);
  EXPECT_EQ(last_report_.hits, 1u);
}

TEST_F(AdapterStagingTest, RoomIsMadeAndTold) {
  Open(10);
  const AdapterVersionPtr a = Version(1, 6), b = Version(2, 6);
  LoadWhole(a);
  LoadWhole(b);
  EXPECT_FALSE(staging_->Has(1));
  EXPECT_EQ(a->activity->staged_bytes.load(), 0);
  EXPECT_EQ(last_report_.evictions, 1u);
  LoadWhole(a);
  EXPECT_EQ(reads_, 3);
  EXPECT_EQ(backend_.allocations, 1);
}

TEST_F(AdapterStagingTest, ImageStaysWhileItIsCopied) {
  Open(10);
  const AdapterVersionPtr a = Version(1, 6);
  std::shared_ptr<ImageTransfer> transfer = Load(a);
  EXPECT_FALSE(transfer->Done());
  staging_->Retire(1);
  EXPECT_TRUE(staging_->Has(1));
  LoadWhole(Version(2, 6));  // through a buffer of its own
  EXPECT_FALSE(staging_->Has(2));
  EXPECT_EQ(backend_.allocations, 2);
  transfer.reset();
  EXPECT_FALSE(staging_->Has(1));
  EXPECT_EQ(a->activity->staged_bytes.load(), 0);
  EXPECT_EQ(backend_.unread, 0) << "the memory was let go before it was copied";
}

TEST_F(AdapterStagingTest, BuffersOfTheirOwnAreUsedAgain) {
  Open(1);
  LoadWhole(Version(1, 6));
  LoadWhole(Version(2, 5));
  EXPECT_EQ(backend_.allocations, 2);
  EXPECT_EQ(backend_.buffers, 2);
  LoadWhole(Version(3, 9));
  LoadWhole(Version(4, 7));
  EXPECT_EQ(backend_.allocations, 3);
  EXPECT_EQ(backend_.buffers, 2) << "the smaller one is gone";
  EXPECT_EQ(staging_->report().bytes, 0u);
}

TEST_F(AdapterStagingTest, TierOfNoBlocksWorks) {
  Open(0);
  LoadWhole(Version(1, 6));
  EXPECT_EQ(backend_.allocations, 1);
}

TEST_F(AdapterStagingTest, FilesThatCannotBeReadLeaveNothing) {
  Open(10);
  const AdapterVersionPtr a = Version(1, 6), large = Version(2, 20);
  read_status_ = absl::DataLossError("bits rot");
  const std::vector<uint32_t> pages(20);
  EXPECT_EQ(staging_->Load(*a, pages, AfterSteps()).status(), read_status_);
  EXPECT_EQ(staging_->Load(*large, pages, AfterSteps()).status(), read_status_);
  EXPECT_EQ(staging_->report().bytes, 0u);
  EXPECT_EQ(backend_.transfers, 0);
  read_status_ = absl::OkStatus();
  LoadWhole(a);
}

TEST_F(AdapterStagingTest, MemoryThatCannotBePinnedIsAnError) {
  Open(1);
  backend_.allocate_status = absl::ResourceExhaustedError("no");
  const std::vector<uint32_t> pages(20);
  EXPECT_EQ(staging_->Load(*Version(1, 6), pages, AfterSteps()).status(), backend_.allocate_status);
  const auto made = AdapterStaging::Make(
      {.ranks = {{.backend = &backend_, .slab = {slabs_[0].data(), kPageBytes}}},
       .bytes = 1 << 20,
       .clock = &clock_});
  EXPECT_EQ(made.status(), backend_.allocate_status);
}

TEST_F(AdapterStagingTest, WhatNobodyCanAskForIsNotKept) {
  Open(10);
  const AdapterVersionPtr superseded = Version(1, 3), dropped = Version(2, 3);
  superseded->activity->superseded = dropped->activity->superseded = true;
  dropped->activity->dropped = true;
  LoadWhole(superseded);
  LoadWhole(dropped);
  EXPECT_TRUE(staging_->Has(1)) << "kept for name@version";
  EXPECT_FALSE(staging_->Has(2));
  EXPECT_EQ(dropped->activity->staged_bytes.load(), 0);
}

TEST_F(AdapterStagingTest, RetiredWhileItIsReadIsNotKept) {
  Open(10);
  during_read_ = [this] { staging_->Retire(1); };
  LoadWhole(Version(1, 3));
  EXPECT_FALSE(staging_->Has(1));
}

TEST_F(AdapterStagingTest, SecondLoadWhileTheFirstReadsGoesItsOwnWay) {
  Open(10);
  const AdapterVersionPtr a = Version(1, 3);
  during_read_ = [&] {
    during_read_ = nullptr;
    Load(a, 50);
  };
  LoadWhole(a);
  EXPECT_EQ(reads_, 2);
  EXPECT_EQ(staging_->report().bytes, 3u * 4096);
}

TEST_F(AdapterStagingTest, EachRankHasItsShare) {
  Open(10, 2);
  const AdapterVersionPtr a = Version(1, 4);
  LoadWhole(a);
  EXPECT_EQ(staging_->report().bytes, 8u * 4096);
  EXPECT_EQ(backend_.last_after_step, 8u) << "each rank counts its own steps";
  LoadWhole(a);
  EXPECT_EQ(reads_, 1);
}

TEST_F(AdapterStagingTest, ManyThreads) {
  Open(20);
  std::vector<AdapterVersionPtr> versions;
  for (AdapterVersionId id = 1; id <= 12; ++id) versions.push_back(Version(id, 1 + id % 5));
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 200; ++i) {
        const AdapterVersionPtr& version = versions[random() % versions.size()];
        const auto transfer = Load(version, 40 * t);
        if (random() % 2 == 0) {
          EXPECT_TRUE(transfer->Wait().ok());
        }
        if (random() % 10 == 0) staging_->Retire(version->id);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(staging_->Validate().ok());
  EXPECT_EQ(backend_.unread, 0);
  const HostTierReport report = staging_->report();
  EXPECT_EQ(report.hits + report.misses, 800u);
  EXPECT_GT(report.hits, 50u);
  EXPECT_GT(report.evictions, 50u);
}

}  // namespace
}  // namespace lorad
