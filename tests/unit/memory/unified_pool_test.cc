#include "memory/unified_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr TimePoint kNow{};

class UnifiedPoolTest : public testing::Test {
 protected:
  UnifiedPoolTest() { pool_.prefixes().set_seconds_per_token(0.25); }  // a page: 1 s
  void TearDown() override {
    const PageList* const lists[] = {&sequence_};
    EXPECT_EQ(pool_.Validate(lists), absl::OkStatus());
    sequence_.Clear();
    lease_.Release();
  }
  void Load(AdapterVersionId id, uint32_t pages, double seconds) {
    ASSERT_THAT(pool_.adapters().BeginLoad(id, pages, pool_.available_pages(), kNow),
                SizeIs(pages));
    pool_.adapters().FinishLoad(id, seconds, kNow);
    pool_.adapters().Lease(id, kNow);
    pool_.adapters().Release(id, kNow);
  }
  // Keeps `pages` whole pages of the token.
  void Keep(int32_t token, uint32_t pages) {
    PageList list(&pool_.pages(), PageUse::kKv);
    ASSERT_TRUE(pool_.MakeRoom(pages) && list.Grow(pages));
    PrefixCache::Lease lease;
    const std::vector<int32_t> tokens(pages * 4, token);
    pool_.prefixes().Insert({}, tokens, false, &list, &lease);
    list.Clear();
  }
  uint32_t Kept(int32_t token) const {
    return pool_.prefixes().Find({}, std::vector<int32_t>(40, token), 40).pages;
  }
  std::vector<uint32_t> States() const {
    const UnifiedPool::States s = pool_.states();
    return {s.free, s.kv, s.kv_cached, s.adapter, s.loading};
  }

  UnifiedPool pool_{10, 1, {.page_tokens = 4, .initial_seconds_per_page = 0.5}};
  PageList sequence_{&pool_.pages(), PageUse::kKv};
  PrefixCache::Lease lease_;
};

TEST_F(UnifiedPoolTest, EachPageIsInOneState) {
  EXPECT_THAT(States(), ElementsAre(10, 0, 0, 0, 0));
  Load(1, 2, 1);
  ASSERT_THAT(pool_.adapters().BeginLoad(2, 1, pool_.available_pages(), kNow), SizeIs(1));
  ASSERT_TRUE(sequence_.Grow(2));
  EXPECT_THAT(States(), ElementsAre(5, 2, 0, 2, 1));
  Keep(7, 3);
  EXPECT_THAT(States(), ElementsAre(2, 2, 3, 2, 1));
  const std::vector<int32_t> tokens(8, 5);
  pool_.prefixes().Insert({}, tokens, false, &sequence_, &lease_);
  EXPECT_THAT(States(), ElementsAre(2, 2, 3, 2, 1));
  EXPECT_EQ(pool_.available_pages(), 2u + 3 + 2);
  pool_.adapters().Lease(1, kNow);
  EXPECT_EQ(pool_.available_pages(), 2u + 3);
  sequence_.Clear();
  EXPECT_THAT(States(), ElementsAre(2, 2, 3, 2, 1));  // the lease holds them
  lease_.Release();
  EXPECT_THAT(States(), ElementsAre(2, 0, 5, 2, 1));
  pool_.adapters().Release(1, kNow);
  pool_.adapters().SetPinned(1, true);
  EXPECT_EQ(pool_.available_pages(), 2u + 5);
  pool_.adapters().AbortLoad(2);
  EXPECT_THAT(States(), ElementsAre(3, 0, 5, 2, 0));
}

TEST_F(UnifiedPoolTest, AdaptersAndPrefixesCompeteBySecondsAPage) {
  Load(1, 2, 1);  // half a second a page
  Keep(7, 2);     // one second
  Load(2, 2, 4);  // two seconds
  EXPECT_TRUE(pool_.MakeRoom(6));
  EXPECT_THAT(pool_.adapters().TakeEvicted(), ElementsAre(1));
  EXPECT_EQ(Kept(7), 2u);
  EXPECT_TRUE(pool_.MakeRoom(7));
  EXPECT_EQ(Kept(7), 1u);
  EXPECT_TRUE(pool_.MakeRoom(8));
  EXPECT_EQ(Kept(7), 0u);
  EXPECT_THAT(pool_.adapters().TakeEvicted(), IsEmpty());
  EXPECT_TRUE(pool_.MakeRoom(10));
  EXPECT_THAT(pool_.adapters().TakeEvicted(), ElementsAre(2));
}

TEST_F(UnifiedPoolTest, ALoadTakesTheRoomOfPrefixes) {
  Keep(7, 9);
  EXPECT_THAT(pool_.adapters().BeginLoad(1, 11, pool_.available_pages(), kNow), IsEmpty());
  EXPECT_EQ(Kept(7), 9u);
  Load(1, 5, 100);
  EXPECT_EQ(Kept(7), 5u);
  EXPECT_EQ(pool_.prefixes().stats().evicted_pages, 4u);
}

TEST_F(UnifiedPoolTest, InteriorPagesOfAnUnleasedBranchAreAvailable) {
  Keep(7, 10);
  EXPECT_EQ(pool_.available_pages(), 10u);
  EXPECT_TRUE(pool_.MakeRoom(10));
  EXPECT_EQ(pool_.pages().free_pages(), 10u);
}

TEST_F(UnifiedPoolTest, ValidateSeesAPageThatNobodyNamed) {
  ASSERT_TRUE(sequence_.Grow(1));
  EXPECT_THAT(std::string(pool_.Validate({}).message()), HasSubstr("1 references, 0 list"));
}

TEST_F(UnifiedPoolTest, ValidateSeesAnUnleasedPageThatASequenceStillHolds) {
  ASSERT_TRUE(sequence_.Grow(1));
  pool_.prefixes().Insert({}, std::vector<int32_t>(4, 7), false, &sequence_, &lease_);
  lease_.Release();
  const PageList* const lists[] = {&sequence_};
  EXPECT_THAT(std::string(pool_.Validate(lists).message()), HasSubstr("somebody holds its page"));
  sequence_.Clear();
}

}  // namespace
}  // namespace lorad
