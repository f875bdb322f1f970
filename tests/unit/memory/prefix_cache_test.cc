#include "memory/prefix_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kAll = std::numeric_limits<int>::max();
using Tokens = std::vector<int32_t>;

// One letter a token.
Tokens T(std::string_view text) { return {text.begin(), text.end()}; }

// A sequence as the engine keeps it.
struct Sequence {
  PageList pages;
  PrefixCache::Lease lease;
  void Finish() {
    pages.Clear();
    lease.Release();
  }
};

class PrefixCacheTest : public testing::Test {
 protected:
  PrefixCacheTest() { cache_.set_seconds_per_token(1); }
  void TearDown() override { Check({}); }

  void Check(std::vector<const PageList*> lists) {
    EXPECT_EQ(cache_.Validate(), absl::OkStatus());
    EXPECT_EQ(queue_.Validate(), absl::OkStatus());
    for (const PageList* list : cache_.page_lists()) lists.push_back(list);
    EXPECT_EQ(pool_.Validate(lists), absl::OkStatus());
  }
  // A sequence that has computed `text` without looking for it.
  Sequence Computed(std::string_view text) {
    Sequence sequence{.pages = PageList(&pool_, PageUse::kKv), .lease = {}};
    EXPECT_TRUE(sequence.pages.Grow((static_cast<uint32_t>(text.size()) + 3) / 4));
    return sequence;
  }
  void Insert(Sequence* sequence, std::string_view text, bool tail = false,
              const PrefixScope& scope = {}) {
    cache_.Insert(scope, T(text), tail, &sequence->pages, &sequence->lease);
  }
  // Leaves `text` in the cache, with no sequence.
  void Keep(std::string_view text, const PrefixScope& scope = {}) {
    Sequence sequence = Computed(text);
    Insert(&sequence, text, /*tail=*/true, scope);
    sequence.Finish();
  }
  int Tokens(std::string_view text, int max_tokens = kAll, const PrefixScope& scope = {}) const {
    return cache_.Find(scope, T(text), max_tokens).tokens;
  }
  // Acquires into a new sequence.
  std::pair<Sequence, PrefixCache::Hit> Acquire(std::string_view text, int max_tokens = kAll) {
    Sequence sequence{.pages = PageList(&pool_, PageUse::kKv), .lease = {}};
    PrefixCache::Hit hit = cache_.Acquire({}, T(text), max_tokens, &sequence.pages);
    sequence.lease = std::move(hit.lease);
    return {std::move(sequence), std::move(hit)};
  }

  PagePool pool_{32, 1};
  EvictionQueue queue_{&pool_};
  PrefixCache cache_{&pool_, &queue_, 4, true};
};

TEST_F(PrefixCacheTest, FindsNothingWhereNothingIs) {
  EXPECT_EQ(Tokens("abcdefgh"), 0);
  auto [sequence, hit] = Acquire("abcdefgh");
  EXPECT_EQ(hit.tokens, 0);
  EXPECT_EQ(sequence.lease.pages(), 0u);
  EXPECT_EQ(sequence.pages.size(), 0u);
  EXPECT_EQ(cache_.stats().lookups, 1u);
  EXPECT_EQ(cache_.stats().queried_tokens, 8u);
  EXPECT_EQ(cache_.stats().hit_tokens, 0u);
  EXPECT_THAT(cache_.scopes(), IsEmpty());
}

TEST_F(PrefixCacheTest, SharesWholePagesOfAnEarlierSequence) {
  Sequence first = Computed("aaaabbbbcc");
  Insert(&first, "aaaabbbbcc");
  EXPECT_EQ(cache_.pages(), 2u);  // the unfinished page is not kept
  EXPECT_EQ(first.lease.pages(), 2u);
  EXPECT_EQ(cache_.unreferenced_pages(), 0u);

  const PrefixCache::Found found = cache_.Find({}, T("aaaabbbbdddd"), kAll);
  EXPECT_EQ(found.pages, 2u);
  EXPECT_EQ(found.tokens, 8);
  EXPECT_EQ(found.copy_tokens, 0);
  EXPECT_EQ(found.idle_pages, 0u);
  auto [second, hit] = Acquire("aaaabbbbdddd");
  EXPECT_EQ(hit.tokens, 8);
  EXPECT_THAT(second.pages.ids(), ElementsAre(first.pages.ids()[0], first.pages.ids()[1]));
  EXPECT_EQ(second.lease.pages(), 2u);
  EXPECT_EQ(second.lease.sole_pages(), second.lease.pages() - 2u);
  EXPECT_EQ(cache_.stats().hit_tokens, 8u);
  Check({&first.pages, &second.pages});

  first.Finish();
  EXPECT_EQ(cache_.unreferenced_pages(), 0u);
  EXPECT_EQ(second.lease.sole_pages(), second.lease.pages());
  second.Finish();
  EXPECT_EQ(cache_.unreferenced_pages(), 2u);
  EXPECT_EQ(cache_.Find({}, T("aaaabbbbdddd"), kAll).idle_pages, 2u);
}

TEST_F(PrefixCacheTest, FindsNoMoreThanItMay) {
  Keep("aaaabbbbcc");
  EXPECT_EQ(Tokens("aaaabbbbccd"), 10);
  EXPECT_EQ(Tokens("aaaabbbbccd", 10), 10);
  EXPECT_EQ(Tokens("aaaabbbbccd", 9), 9);
  EXPECT_EQ(Tokens("aaaabbbbccd", 8), 8);
  EXPECT_EQ(Tokens("aaaabbbbccd", 7), 7);  // a copy of the middle of a whole page
  EXPECT_EQ(Tokens("aaaabbbbccd", 4), 4);
  EXPECT_EQ(Tokens("aaaabbbbccd", 3), 3);
  EXPECT_EQ(Tokens("aaaabbbbccd", 0), 0);
  EXPECT_EQ(Tokens("aaaabbbbccd", -1), 0);
  EXPECT_EQ(Tokens("aaaabb"), 6);
  EXPECT_EQ(Tokens(""), 0);

  auto [sequence, hit] = Acquire("aaaabbbbccd", 7);
  EXPECT_EQ(hit.tokens, 7);
  EXPECT_EQ(hit.copy_tokens, 3);
  EXPECT_EQ(sequence.pages.size(), 1u);
  EXPECT_EQ(cache_.stats().queried_tokens, 7u);
  sequence.Finish();
}

TEST_F(PrefixCacheTest, CopiesFromTheChildThatHasMostInCommon) {
  Keep("aaaabbxx");
  Keep("aaaabbby");
  Keep("aaaabz");
  EXPECT_EQ(Tokens("aaaabbbz"), 7);
  EXPECT_EQ(Tokens("aaaabbxz"), 7);
  EXPECT_EQ(Tokens("aaaabbaa"), 6);
  EXPECT_EQ(Tokens("aaaabzbb"), 6);
  EXPECT_EQ(Tokens("aaaabczz"), 5);
  EXPECT_EQ(Tokens("aaaazzzz"), 4);
  EXPECT_EQ(cache_.Find({}, T("aaaabbbz"), kAll).copy_tokens, 3);
  EXPECT_EQ(cache_.Find({}, T("aaaabbbz"), kAll).idle_pages, 2u);
}

TEST_F(PrefixCacheTest, TheCopiedPageStaysWhileItIsLeased) {
  Keep("aaaabbbb");
  auto [sequence, hit] = Acquire("aabbbbbb");
  EXPECT_EQ(hit.tokens, 2);
  EXPECT_EQ(hit.copy_tokens, 2);
  EXPECT_EQ(sequence.pages.size(), 0u);
  EXPECT_EQ(sequence.lease.pages(), 0u);
  EXPECT_EQ(cache_.unreferenced_pages(), 1u);
  EXPECT_FALSE(queue_.MakeRoom(32));
  EXPECT_EQ(cache_.pages(), 1u);
  EXPECT_GT(pool_.references(hit.copy_page), 0u);
  hit.copy_lease.Release();
  EXPECT_TRUE(queue_.MakeRoom(32));
}

TEST_F(PrefixCacheTest, ExchangesAPageForTheOneThatIsThere) {
  Sequence first = Computed("aaaabbbb"), second = Computed("aaaabbbbcccc");
  Insert(&first, "aaaabbbb");
  const uint32_t free_pages = pool_.free_pages();
  Insert(&second, "aaaabbbbcccc");
  EXPECT_EQ(pool_.free_pages(), free_pages + 2);
  EXPECT_EQ(second.pages.ids()[0], first.pages.ids()[0]);
  EXPECT_EQ(second.pages.ids()[1], first.pages.ids()[1]);
  EXPECT_EQ(second.lease.pages(), 3u);
  EXPECT_EQ(cache_.pages(), 3u);
  Check({&first.pages, &second.pages});
  first.Finish();
  second.Finish();
}

TEST_F(PrefixCacheTest, ALeaseGrowsWithItsSequence) {
  Sequence sequence = Computed("aaaabbbbccccdd");
  Insert(&sequence, "aaa");
  EXPECT_EQ(sequence.lease.pages(), 0u);
  EXPECT_THAT(cache_.scopes(), IsEmpty());
  Insert(&sequence, "aaaa");
  EXPECT_EQ(sequence.lease.pages(), 1u);
  const uint64_t epoch = cache_.epoch();
  Insert(&sequence, "aaaabb");
  EXPECT_EQ(cache_.epoch(), epoch);
  Insert(&sequence, "aaaabbbbcccc");
  EXPECT_NE(cache_.epoch(), epoch);
  EXPECT_EQ(sequence.lease.pages(), 3u);
  Check({&sequence.pages});
  PrefixCache::Lease moved = std::move(sequence.lease);
  EXPECT_EQ(sequence.lease.pages(), 0u);
  EXPECT_EQ(moved.pages(), 3u);
  sequence.Finish();
  Insert(&sequence, "");
  EXPECT_EQ(cache_.unreferenced_pages(), 0u);
  const uint64_t leased_epoch = cache_.epoch();
  moved = PrefixCache::Lease();
  EXPECT_EQ(cache_.unreferenced_pages(), 3u);
  EXPECT_NE(cache_.epoch(), leased_epoch);  // Find would say that they are idle
}

TEST_F(PrefixCacheTest, ALongerTailTakesThePlaceOfAShorterOne) {
  Keep("aaaab");
  Keep("aaaabb");
  EXPECT_EQ(cache_.pages(), 2u);
  EXPECT_EQ(Tokens("aaaabbb"), 6);
  Keep("aaaab");  // is there
  EXPECT_EQ(cache_.pages(), 2u);
  EXPECT_EQ(Tokens("aaaabbb"), 6);
  Keep("aaaabc");
  EXPECT_EQ(cache_.pages(), 3u);
  Keep("aaaabbbb");  // a whole page does so too
  EXPECT_EQ(cache_.pages(), 3u);
  EXPECT_EQ(Tokens("aaaabbbb"), 8);
  EXPECT_EQ(Tokens("aaaabc"), 6);
  Keep("aaaabbb");  // is there, in the whole page
  EXPECT_EQ(cache_.pages(), 3u);
}

TEST_F(PrefixCacheTest, ALeasedTailIsNotReplaced) {
  Keep("ab");
  auto [sequence, hit] = Acquire("abxy");
  EXPECT_EQ(hit.copy_tokens, 2);
  Keep("abc");
  Keep("abcd");
  EXPECT_EQ(cache_.pages(), 2u);
  EXPECT_EQ(pool_.references(hit.copy_page), 1u);
  Check({&sequence.pages});
}

TEST_F(PrefixCacheTest, EvictsABranchFromItsEnd) {
  Keep("aaaabbbbcccc");
  ASSERT_EQ(pool_.free_pages(), 29u);
  const uint64_t epoch = cache_.epoch();
  EXPECT_TRUE(queue_.MakeRoom(30));
  EXPECT_NE(cache_.epoch(), epoch);
  EXPECT_EQ(Tokens("aaaabbbbcccc"), 8);
  EXPECT_TRUE(queue_.MakeRoom(31));
  EXPECT_EQ(Tokens("aaaabbbbcccc"), 4);
  EXPECT_TRUE(queue_.MakeRoom(32));
  EXPECT_EQ(cache_.stats().evicted_pages, 3u);
  EXPECT_THAT(cache_.scopes(), IsEmpty());
}

TEST_F(PrefixCacheTest, KeepsWhatIsUsedMoreAndWhatIsLeased) {
  Keep("aaaabbbb");
  Keep("aaaacccc");
  Keep("dddd");
  { auto [sequence, hit] = Acquire("aaaabbbb"); }
  auto [sequence, hit] = Acquire("dddd");
  EXPECT_TRUE(queue_.MakeRoom(29));
  EXPECT_EQ(Tokens("aaaacccc"), 4);
  EXPECT_TRUE(queue_.MakeRoom(30));
  EXPECT_EQ(Tokens("aaaabbbb"), 4);
  EXPECT_TRUE(queue_.MakeRoom(31));
  EXPECT_FALSE(queue_.MakeRoom(32));
  EXPECT_EQ(Tokens("dddd"), 4);
}

TEST_F(PrefixCacheTest, ScopesDoNotMix) {
  const PrefixScope base;
  const std::vector<PrefixScope> others = {{.tenant = "t", .salt = "", .adapter = 0, .weight = 1},
                                           {.tenant = "", .salt = "t", .adapter = 0, .weight = 1},
                                           {.tenant = "", .salt = "", .adapter = 1, .weight = 1},
                                           {.tenant = "", .salt = "", .adapter = 1, .weight = 0.5}};
  Keep("aaaa", base);
  for (const PrefixScope& scope : others) {
    EXPECT_EQ(Tokens("aaaa", kAll, scope), 0);
    Keep("aaaa", scope);
    EXPECT_EQ(Tokens("aaaa", kAll, scope), 4);
  }
  EXPECT_THAT(cache_.scopes(), SizeIs(5));
  EXPECT_EQ(cache_.pages(), 5u);
}

TEST_F(PrefixCacheTest, RetireTakesWhatIsNotLeasedAndLaterTheRest) {
  const PrefixScope scope{.tenant = "t", .salt = "", .adapter = 7, .weight = 1};
  const PrefixScope light{.tenant = "", .salt = "", .adapter = 7, .weight = 0.5};
  Keep("aaaa");
  Keep("aaaa", {.tenant = "", .salt = "", .adapter = 6, .weight = 1});
  Keep("aaaa", {.tenant = "", .salt = "", .adapter = 8, .weight = 1});
  Keep("aaaabbbbccccdd", light);
  Keep("aaaaxxxx", scope);
  Sequence running = Computed("aaaabbbbcccc");
  Insert(&running, "aaaabbbb", false, scope);
  cache_.RetireAdapter(7);
  EXPECT_EQ(cache_.pages(), 5u);
  EXPECT_THAT(cache_.scopes(), SizeIs(4));
  EXPECT_EQ(Tokens("aaaabbbb", kAll, scope), 8);
  EXPECT_EQ(Tokens("aaaabbbb", kAll, light), 0);
  Check({&running.pages});
  Insert(&running, "aaaabbbbcccc", true, scope);
  EXPECT_EQ(cache_.pages(), 5u);
  running.Finish();
  EXPECT_EQ(cache_.pages(), 3u);
  EXPECT_THAT(cache_.scopes(), SizeIs(3));
  EXPECT_EQ(pool_.free_pages(), 29u);
  EXPECT_EQ(cache_.stats().evicted_pages, 0u);  // nobody needed the room
}

TEST_F(PrefixCacheTest, AWeightThatIsNoNumberIsAScopeOfItsOwn) {
  const PrefixScope nan{.weight = std::numeric_limits<float>::quiet_NaN()};
  Keep("aaaa");
  EXPECT_EQ(Tokens("aaaa", kAll, nan), 0);
  Keep("aaaa", nan);
  EXPECT_EQ(Tokens("aaaa", kAll, nan), 4);
  EXPECT_EQ(cache_.pages(), 2u);
}

TEST_F(PrefixCacheTest, AnExchangeKeepsTheFirstPageAndItsUses) {
  Keep("aaaa");
  Keep("bbbb");
  Keep("aaaa");  // wanted again, though nobody looked for it
  EXPECT_TRUE(queue_.MakeRoom(31));
  EXPECT_EQ(Tokens("aaaa"), 4);
  EXPECT_EQ(Tokens("bbbb"), 0);
}

TEST_F(PrefixCacheTest, FindsATailBehindOneThatBeganLikeIt) {
  Keep("ab");
  auto [sequence, hit] = Acquire("ab");  // holds it, so that it is not replaced by
  Keep("abaa");
  hit.copy_lease.Release();
  EXPECT_EQ(cache_.pages(), 2u);
  Keep("abbb");  // which stands behind "abaa" and takes the place of "ab"
  EXPECT_EQ(cache_.pages(), 2u);
  EXPECT_EQ(Tokens("abbb"), 4);
}

TEST_F(PrefixCacheTest, CopyingCountsAsThePartOfAUseThatItIs) {
  Keep("aaaa");
  Keep("bbbb");
  Keep("cccc");
  { auto [sequence, hit] = Acquire("aaab"); }  // three quarters
  { auto [sequence, hit] = Acquire("bbcd"); }  // a half
  { auto [sequence, hit] = Acquire("ccc", 1); }
  EXPECT_TRUE(queue_.MakeRoom(30));
  EXPECT_EQ(Tokens("cccc"), 0);
  EXPECT_TRUE(queue_.MakeRoom(31));
  EXPECT_EQ(Tokens("bbbb"), 0);
  EXPECT_EQ(Tokens("aaaa"), 4);
}

// A recursive walk would need tens of megabytes of stack here.
TEST(PrefixCacheDepth, VeryLongPromptsDoNotRecurse) {
  constexpr uint32_t kPages = 200'000;
  PagePool pool(kPages + 1, 1);
  EvictionQueue queue(&pool);
  const std::vector<int32_t> tokens(kPages, 7);
  for (const bool evict : {true, false}) {
    PrefixCache cache(&pool, &queue, 1, true);
    {
      Sequence sequence{.pages = PageList(&pool, PageUse::kKv), .lease = {}};
      ASSERT_TRUE(sequence.pages.Grow(kPages));
      cache.Insert({.adapter = 1}, tokens, true, &sequence.pages, &sequence.lease);
      EXPECT_EQ(cache.Find({.adapter = 1}, tokens, kAll).tokens, static_cast<int>(kPages));
    }
    EXPECT_EQ(cache.Validate(), absl::OkStatus());
    EXPECT_EQ(cache.unreferenced_pages(), kPages);
    if (evict) cache.RetireAdapter(1);
    EXPECT_EQ(cache.pages(), evict ? 0 : kPages);
  }
  EXPECT_EQ(pool.free_pages(), kPages + 1);
}

using PrefixCacheDeathTest = PrefixCacheTest;

TEST_F(PrefixCacheDeathTest, BrokenRequirementsAbort) {
  Sequence sequence = Computed("aaaabb"), other = Computed("xxxx");
  EXPECT_DEATH(Insert(&sequence, "aaaabbbbc"), "invariant broken");  // not so many pages
  EXPECT_DEATH((void)cache_.Acquire({}, T("aaaa"), kAll, &sequence.pages), "invariant broken");
  Insert(&sequence, "aaaa");
  other.lease = std::move(sequence.lease);
  EXPECT_DEATH(Insert(&other, "xxxxyyyy"), "invariant broken");
  EXPECT_DEATH(Insert(&other, "aaaabbbb"), "invariant broken");  // a lease of others' pages
  EXPECT_DEATH(PrefixCache(&pool_, &queue_, 0, true), "invariant broken");
}

TEST_F(PrefixCacheTest, DisabledItKeepsNothing) {
  PrefixCache off(&pool_, &queue_, 4, false);
  Sequence sequence = Computed("aaaabb");
  off.Insert({}, T("aaaabb"), true, &sequence.pages, &sequence.lease);
  EXPECT_EQ(off.pages(), 0u);
  EXPECT_EQ(sequence.lease.pages(), 0u);
  PageList found(&pool_, PageUse::kKv);
  EXPECT_EQ(off.Acquire({}, T("aaaabb"), kAll, &found).tokens, 0);
  EXPECT_EQ(off.stats().lookups, 0u);
}

}  // namespace
}  // namespace lorad
