#include "memory/adapter_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

TimePoint At(int tick) { return TimePoint(Duration(tick)); }

class AdapterCacheTest : public testing::Test {
 protected:
  void TearDown() override {
    EXPECT_EQ(cache_.Validate(), absl::OkStatus());
    EXPECT_EQ(queue_.Validate(), absl::OkStatus());
    std::vector<const PageList*> lists = cache_.page_lists();
    lists.push_back(&kv_);
    EXPECT_EQ(pool_.Validate(lists), absl::OkStatus());
  }
  std::span<const uint32_t> BeginLoad(AdapterVersionId id, uint32_t pages, int tick) {
    return cache_.BeginLoad(id, pages, pool_.free_pages() + cache_.evictable_pages(), At(tick));
  }
  // Loads `id`, at one second a page, and serves the request that it was for.
  void Load(AdapterVersionId id, uint32_t pages, int tick) {
    ASSERT_THAT(BeginLoad(id, pages, tick), SizeIs(pages));
    cache_.FinishLoad(id, pages, At(tick));
    cache_.Lease(id, At(tick));
    cache_.Release(id, At(tick));
  }

  PagePool pool_{10, 1};
  PageList kv_{&pool_, PageUse::kKv};
  EvictionQueue queue_{&pool_};
  AdapterCache cache_{&pool_, &queue_, 0.5};
};

TEST_F(AdapterCacheTest, GoesFromStoredToLoadingToIdleToLeasedAndBack) {
  EXPECT_FALSE(cache_.IsResident(7) || cache_.IsLoading(7) || cache_.IsIdle(7));
  EXPECT_EQ(cache_.pages_of(7), 0u);

  const std::span<const uint32_t> pages = BeginLoad(7, 3, 1);
  ASSERT_THAT(pages, SizeIs(3));
  EXPECT_TRUE(cache_.IsLoading(7));
  EXPECT_FALSE(cache_.IsResident(7) || cache_.IsIdle(7));
  EXPECT_EQ(cache_.pages_of(7), 3u);
  EXPECT_EQ(cache_.evictable_pages(), 0u);
  EXPECT_EQ(cache_.stats().loading, 1u);
  EXPECT_EQ(cache_.stats().loads, 0u);

  cache_.FinishLoad(7, 1, At(2));
  EXPECT_TRUE(cache_.IsResident(7) && cache_.IsIdle(7));
  EXPECT_FALSE(cache_.IsLoading(7));
  EXPECT_EQ(cache_.evictable_pages(), 3u);
  EXPECT_EQ(cache_.stats().loads, 1u);
  EXPECT_EQ(cache_.last_use(7), At(2));

  const std::span<const uint32_t> leased = cache_.Lease(7, At(3));
  EXPECT_EQ(leased.data(), pages.data());  // the image did not move
  EXPECT_TRUE(cache_.IsResident(7));
  EXPECT_FALSE(cache_.IsIdle(7));
  EXPECT_EQ(cache_.evictable_pages(), 0u);
  EXPECT_EQ(cache_.stats().leased, 1u);

  cache_.Release(7, At(5));
  EXPECT_TRUE(cache_.IsIdle(7));
  EXPECT_EQ(cache_.last_use(7), At(5));
  EXPECT_EQ(cache_.stats().leased, 0u);
  EXPECT_EQ(cache_.stats().resident, 1u);
  EXPECT_THAT(cache_.TakeEvicted(), IsEmpty());
}

TEST_F(AdapterCacheTest, AnAbortedLoadGivesItsPagesBackAndMayBeTriedAgain) {
  ASSERT_THAT(BeginLoad(7, 4, 1), SizeIs(4));
  cache_.AbortLoad(7);
  EXPECT_FALSE(cache_.IsLoading(7));
  EXPECT_EQ(pool_.free_pages(), 10u);
  EXPECT_EQ(cache_.stats().loads, 0u);
  EXPECT_THAT(cache_.TakeEvicted(), IsEmpty());
  Load(7, 4, 2);
  EXPECT_TRUE(cache_.IsIdle(7));
}

TEST_F(AdapterCacheTest, EvictsTheLeastRecentlyUsedFirst) {
  Load(1, 2, 1);
  Load(2, 2, 2);
  Load(3, 2, 3);
  cache_.Lease(1, At(4));
  cache_.Release(1, At(5));  // now 2 is the oldest
  ASSERT_TRUE(queue_.MakeRoom(6));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(2));
  EXPECT_THAT(cache_.TakeEvicted(), IsEmpty());
  ASSERT_TRUE(queue_.MakeRoom(9));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(3, 1));
  EXPECT_EQ(cache_.stats().evictions, 3u);
  EXPECT_EQ(pool_.free_pages(), 10u);
}

TEST_F(AdapterCacheTest, UsesAtOneMomentAreOrderedByTheirCalls) {
  for (AdapterVersionId id : {5, 3, 9, 1}) Load(id, 1, 0);
  ASSERT_TRUE(queue_.MakeRoom(10));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(5, 3, 9, 1));
}

TEST_F(AdapterCacheTest, MakeRoomEvictsNoMoreThanNeeded) {
  Load(1, 2, 1);
  Load(2, 2, 2);
  EXPECT_TRUE(queue_.MakeRoom(6));
  EXPECT_THAT(cache_.TakeEvicted(), IsEmpty());
  EXPECT_TRUE(queue_.MakeRoom(7));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(1));
}

TEST_F(AdapterCacheTest, LeasedAndLoadingImagesAreNeverEvicted) {
  Load(1, 2, 1);
  cache_.Lease(1, At(2));
  cache_.Lease(1, At(2));
  ASSERT_THAT(BeginLoad(2, 2, 3), SizeIs(2));
  Load(3, 2, 4);
  EXPECT_FALSE(queue_.MakeRoom(10));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(3));
  cache_.Release(1, At(5));
  EXPECT_FALSE(queue_.MakeRoom(10));  // one lease is left
  EXPECT_THAT(cache_.TakeEvicted(), IsEmpty());
  cache_.Release(1, At(6));
  cache_.FinishLoad(2, 1, At(7));
  EXPECT_TRUE(queue_.MakeRoom(10));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(2, 1));  // 1 was wanted twice
}

TEST_F(AdapterCacheTest, KeepsWhatIsUsedMoreAndWhatTakesLongerToLoad) {
  Load(1, 2, 1);
  Load(2, 2, 2);
  ASSERT_THAT(BeginLoad(3, 2, 3), SizeIs(2));
  cache_.FinishLoad(3, 3, At(3));  // 1.5 s a page
  for (int i = 0; i < 2; ++i) {
    cache_.Lease(1, At(4));
    cache_.Release(1, At(4));
  }
  EXPECT_TRUE(queue_.MakeRoom(10));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(2, 3, 1));
}

TEST_F(AdapterCacheTest, TheFirstLeaseIsTheUseThatTheLoadWasFor) {
  const double again = cache_.again();
  Load(1, 2, 1);
  EXPECT_DOUBLE_EQ(cache_.again(), again);
  cache_.Lease(1, At(2));
  EXPECT_GT(cache_.again(), again);
}

TEST_F(AdapterCacheTest, WhatWasLoadedForARequestIsKeptUntilItComes) {
  ASSERT_THAT(BeginLoad(1, 2, 1), SizeIs(2));
  cache_.FinishLoad(1, 2, At(2));
  Load(2, 2, 3);
  EXPECT_TRUE(queue_.MakeRoom(8));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(2));
  Load(3, 2, 4);
  cache_.Lease(1, At(5));
  cache_.Release(1, At(5));
  Load(4, 2, 6);
  EXPECT_TRUE(queue_.MakeRoom(10));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(3, 1, 4));  // all alike now
}

TEST_F(AdapterCacheTest, APinnedImageIsNotEvicted) {
  Load(1, 2, 1);
  Load(2, 3, 2);
  cache_.SetPinned(1, true);
  cache_.SetPinned(1, true);
  EXPECT_TRUE(cache_.IsPinned(1) && cache_.IsIdle(1));
  EXPECT_FALSE(cache_.IsPinned(2) || cache_.IsPinned(9));
  EXPECT_EQ(cache_.evictable_pages(), 3u);
  EXPECT_EQ(cache_.stats().pinned, 1u);
  EXPECT_EQ(cache_.stats().pinned_pages, 2u);
  EXPECT_FALSE(queue_.MakeRoom(10));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(2));
  cache_.Lease(1, At(3));
  cache_.Release(1, At(4));  // idle again, still pinned
  EXPECT_FALSE(queue_.MakeRoom(10));
  cache_.SetPinned(1, false);
  EXPECT_EQ(cache_.stats().pinned_pages, 0u);
  EXPECT_TRUE(queue_.MakeRoom(10));
}

TEST_F(AdapterCacheTest, ASparedImageGoesToNobodyUntilItIsTakenBack) {
  Load(1, 2, 1);
  Load(2, 3, 2);
  cache_.SetSpared(1, true);
  cache_.SetSpared(1, true);
  cache_.SetSpared(9, true);  // it is not here
  EXPECT_TRUE(cache_.IsIdle(1) && !cache_.IsEvictable(1) && !cache_.IsPinned(1));
  EXPECT_EQ(cache_.evictable_pages(), 3u);
  EXPECT_FALSE(queue_.MakeRoom(10));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(2));
  cache_.Lease(1, At(3));
  cache_.Release(1, At(4));  // idle again, still spared
  EXPECT_FALSE(queue_.MakeRoom(10));
  cache_.SetSpared(1, false);
  cache_.SetSpared(1, false);
  EXPECT_EQ(cache_.evictable_pages(), 2u);
  EXPECT_TRUE(queue_.MakeRoom(10));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(1));
}

TEST_F(AdapterCacheTest, SparingDoesNotUndoAPinOrALease) {
  Load(1, 2, 1);
  cache_.SetPinned(1, true);
  cache_.SetSpared(1, true);
  cache_.SetSpared(1, false);
  EXPECT_FALSE(cache_.IsEvictable(1));
  cache_.SetPinned(1, false);
  cache_.Lease(1, At(2));
  cache_.SetSpared(1, true);
  cache_.SetSpared(1, false);
  EXPECT_FALSE(cache_.IsEvictable(1));
  EXPECT_FALSE(queue_.MakeRoom(10));
  cache_.Release(1, At(3));
  EXPECT_TRUE(cache_.IsEvictable(1));
}

TEST_F(AdapterCacheTest, ASparedImageIsRetiredAllTheSame) {
  Load(1, 2, 1);
  cache_.SetSpared(1, true);
  cache_.Retire(1);
  EXPECT_FALSE(cache_.IsResident(1));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(1));
}

TEST_F(AdapterCacheTest, ALoadingImageMayBePinnedAndAPinnedOneRetired) {
  ASSERT_THAT(BeginLoad(1, 2, 1), SizeIs(2));
  cache_.SetPinned(1, true);
  EXPECT_EQ(cache_.loading_pages(), 2u);
  cache_.FinishLoad(1, 1, At(2));
  EXPECT_EQ(cache_.loading_pages(), 0u);
  EXPECT_EQ(cache_.evictable_pages(), 0u);
  cache_.Retire(1);
  EXPECT_EQ(pool_.free_pages(), 10u);
  EXPECT_EQ(cache_.stats().pinned, 0u);
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(1));
}

TEST_F(AdapterCacheTest, MeasuresWhatLoadingAPageTakes) {
  EXPECT_DOUBLE_EQ(cache_.seconds_per_page(), 0.5);  // as it was told
  ASSERT_THAT(BeginLoad(1, 4, 1), SizeIs(4));
  cache_.FinishLoad(1, 8, At(2));
  EXPECT_DOUBLE_EQ(cache_.seconds_per_page(), 2);
  ASSERT_THAT(BeginLoad(2, 2, 3), SizeIs(2));
  cache_.FinishLoad(2, 20, At(4));
  EXPECT_DOUBLE_EQ(cache_.seconds_per_page(), 3);  // an eighth of the way to 10
}

TEST_F(AdapterCacheTest, NamesAllThatAreHere) {
  Load(1, 1, 1);
  ASSERT_THAT(BeginLoad(2, 1, 2), SizeIs(1));
  EXPECT_THAT(cache_.ids(), UnorderedElementsAre(1, 2));
}

TEST_F(AdapterCacheTest, BeginLoadEvictsIdleAdaptersForItself) {
  Load(1, 4, 1);
  Load(2, 4, 2);
  EXPECT_THAT(BeginLoad(3, 5, 3), SizeIs(5));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(1));
  EXPECT_TRUE(cache_.IsResident(2));
}

TEST_F(AdapterCacheTest, ALoadThatCannotFitChangesNothing) {
  Load(1, 4, 1);
  Load(2, 4, 2);
  cache_.Lease(1, At(3));
  EXPECT_THAT(BeginLoad(3, 7, 4), IsEmpty());  // 2 free and 4 idle
  EXPECT_THAT(cache_.TakeEvicted(), IsEmpty());
  EXPECT_TRUE(cache_.IsIdle(2));
  EXPECT_FALSE(cache_.IsLoading(3));
  EXPECT_EQ(pool_.free_pages(), 2u);
  EXPECT_THAT(BeginLoad(3, 6, 5), SizeIs(6));
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(2));
}

TEST_F(AdapterCacheTest, KvPagesAndAdaptersShareOnePool) {
  ASSERT_TRUE(kv_.Grow(7));
  EXPECT_THAT(BeginLoad(1, 4, 1), IsEmpty());  // KV pages are not the cache's to take
  Load(1, 3, 2);
  EXPECT_FALSE(kv_.Grow(1));
  ASSERT_TRUE(queue_.MakeRoom(2));
  ASSERT_TRUE(kv_.Grow(3));
  EXPECT_EQ(pool_.pages_in_use(PageUse::kKv), 10u);
  EXPECT_FALSE(queue_.MakeRoom(1));
  kv_.Truncate(4);
  Load(2, 6, 3);
  EXPECT_EQ(pool_.pages_in_use(PageUse::kAdapter), 6u);
}

TEST_F(AdapterCacheTest, RetireTakesAnIdleImageAtOnce) {
  Load(1, 4, 1);
  cache_.Retire(1);
  EXPECT_FALSE(cache_.IsResident(1));
  EXPECT_EQ(pool_.free_pages(), 10u);
  EXPECT_EQ(cache_.evictable_pages(), 0u);
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(1));
  EXPECT_EQ(cache_.stats().evictions, 0u);  // nobody needed the room
}

TEST_F(AdapterCacheTest, RetireWaitsForTheLastLease) {
  Load(1, 4, 1);
  cache_.Lease(1, At(2));
  cache_.Retire(1);
  cache_.Retire(1);
  EXPECT_TRUE(cache_.IsResident(1));
  cache_.Lease(1, At(3));  // a request that named it before it was retired
  cache_.Release(1, At(4));
  EXPECT_TRUE(cache_.IsResident(1));
  EXPECT_THAT(cache_.TakeEvicted(), IsEmpty());
  cache_.Release(1, At(5));
  EXPECT_FALSE(cache_.IsResident(1));
  EXPECT_EQ(pool_.free_pages(), 10u);
  EXPECT_THAT(cache_.TakeEvicted(), ElementsAre(1));
}

TEST_F(AdapterCacheTest, RetireWaitsForALoad) {
  ASSERT_THAT(BeginLoad(1, 4, 1), SizeIs(4));
  cache_.Retire(1);
  EXPECT_TRUE(cache_.IsLoading(1));  // a loader is writing into these pages
  EXPECT_EQ(pool_.free_pages(), 6u);
  cache_.FinishLoad(1, 1, At(2));
  EXPECT_FALSE(cache_.IsResident(1));
  EXPECT_EQ(pool_.free_pages(), 10u);

  ASSERT_THAT(BeginLoad(2, 4, 3), SizeIs(4));
  cache_.Retire(2);
  cache_.AbortLoad(2);
  EXPECT_EQ(pool_.free_pages(), 10u);
}

TEST_F(AdapterCacheTest, AFillingImageIsUsedButNotEvicted) {
  ASSERT_THAT(BeginLoad(1, 4, 1), SizeIs(4));
  cache_.BeginFill(1, At(2));
  EXPECT_TRUE(cache_.IsResident(1) && cache_.IsFilling(1));
  EXPECT_FALSE(cache_.IsLoading(1) || cache_.IsIdle(1) || cache_.IsEvictable(1));
  EXPECT_EQ(cache_.stats().loads, 0u);
  EXPECT_THAT(cache_.Lease(1, At(3)), SizeIs(4));
  cache_.Release(1, At(4));
  EXPECT_FALSE(queue_.MakeRoom(10)) << "a copy writes into its pages";
  cache_.FinishLoad(1, 2, At(5));
  EXPECT_TRUE(cache_.IsEvictable(1));
  EXPECT_EQ(cache_.seconds_per_page(), 0.5);
  EXPECT_EQ(cache_.stats().loads, 1u);
  EXPECT_TRUE(queue_.MakeRoom(10));
}

TEST_F(AdapterCacheTest, RetireWaitsForAFillAndForItsLeases) {
  for (const bool leases_end_first : {true, false}) {
    ASSERT_THAT(BeginLoad(1, 4, 1), SizeIs(4));
    cache_.BeginFill(1, At(1));
    cache_.Lease(1, At(1));
    cache_.Retire(1);
    leases_end_first ? cache_.Release(1, At(1)) : cache_.FinishLoad(1, 1, At(1));
    EXPECT_TRUE(cache_.IsResident(1));
    leases_end_first ? cache_.FinishLoad(1, 1, At(1)) : cache_.Release(1, At(1));
    EXPECT_FALSE(cache_.IsResident(1));
    EXPECT_EQ(pool_.free_pages(), 10u);
  }
}

TEST_F(AdapterCacheTest, RetireOfAnAbsentAdapterDoesNothingEvenLater) {
  cache_.Retire(1);
  Load(1, 4, 1);
  EXPECT_TRUE(cache_.IsIdle(1));
}

using AdapterCacheDeathTest = AdapterCacheTest;

TEST_F(AdapterCacheDeathTest, BrokenRequirementsAbort) {
  Load(1, 2, 1);
  ASSERT_THAT(BeginLoad(2, 2, 2), SizeIs(2));
  EXPECT_DEATH(BeginLoad(1, 1, 3), "invariant broken");
  EXPECT_DEATH(BeginLoad(3, 0, 3), "invariant broken");
  EXPECT_DEATH(cache_.FinishLoad(1, 1, At(3)), "invariant broken");
  EXPECT_DEATH(cache_.AbortLoad(1), "invariant broken");
  EXPECT_DEATH(cache_.BeginFill(1, At(3)), "invariant broken");
  EXPECT_DEATH(cache_.Lease(2, At(3)), "invariant broken");
  EXPECT_DEATH(cache_.Release(1, At(3)), "invariant broken");
  EXPECT_DEATH(cache_.Lease(9, At(3)), "invariant broken");
  EXPECT_DEATH(cache_.SetPinned(9, true), "invariant broken");
  EXPECT_DEATH(cache_.BeginLoad(3, 9, 9, At(3)), "invariant broken");  // only 8 can be had
}

}  // namespace
}  // namespace lorad
