#include "memory/page_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <utility>

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

std::vector<uint32_t> Ids(const PageList& list) { return {list.ids().begin(), list.ids().end()}; }

absl::Status Check(const PagePool& pool, std::vector<const PageList*> lists) {
  return pool.Validate(lists);
}

TEST(PagePool, StartsFree) {
  PagePool pool(5, 4096);
  EXPECT_EQ(pool.total_pages(), 5u);
  EXPECT_EQ(pool.free_pages(), 5u);
  EXPECT_EQ(pool.page_bytes(), 4096u);
  EXPECT_EQ(pool.pages_in_use(PageUse::kFree), 5u);
  EXPECT_EQ(pool.pages_in_use(PageUse::kKv), 0u);
  EXPECT_EQ(Check(pool, {}), absl::OkStatus());
}

TEST(PagePool, OfNoPagesIsValidAndGivesNone) {
  PagePool pool(0, 4096);
  PageList list(&pool, PageUse::kKv);
  EXPECT_TRUE(list.Grow(0));
  EXPECT_FALSE(list.Grow(1));
  EXPECT_EQ(Check(pool, {&list}), absl::OkStatus());
}

TEST(PagePool, GrowGivesDistinctPagesAllOrNone) {
  PagePool pool(4, 1);
  PageList kv(&pool, PageUse::kKv), image(&pool, PageUse::kAdapter);
  ASSERT_TRUE(kv.Grow(1));
  ASSERT_TRUE(image.Grow(2));
  EXPECT_EQ(pool.pages_in_use(PageUse::kKv), 1u);
  EXPECT_EQ(pool.pages_in_use(PageUse::kAdapter), 2u);
  EXPECT_FALSE(kv.Grow(2));
  EXPECT_EQ(kv.size(), 1u);
  EXPECT_EQ(pool.free_pages(), 1u);
  ASSERT_TRUE(kv.Grow(1));
  std::set<uint32_t> all(kv.ids().begin(), kv.ids().end());
  all.insert(image.ids().begin(), image.ids().end());
  EXPECT_EQ(all, (std::set<uint32_t>{0, 1, 2, 3}));
  EXPECT_EQ(Check(pool, {&kv, &image}), absl::OkStatus());
}

TEST(PagePool, ThePageFreedLastIsGivenOutFirst) {
  PagePool pool(8, 1);
  PageList list(&pool, PageUse::kKv);
  ASSERT_TRUE(list.Grow(4));
  const uint32_t third = list.ids()[2];
  list.Truncate(2);
  ASSERT_TRUE(list.Grow(1));
  EXPECT_EQ(list.ids()[2], third);
}

TEST(PagePool, ASharedPageIsFreeOnlyAfterItsLastReference) {
  PagePool pool(4, 1);
  PageList prefix(&pool, PageUse::kKv), branch(&pool, PageUse::kKv);
  ASSERT_TRUE(prefix.Grow(3));
  branch.Share(prefix, 0, 2);
  ASSERT_TRUE(branch.Grow(1));
  EXPECT_EQ(pool.references(prefix.ids()[0]), 2u);
  EXPECT_EQ(pool.references(prefix.ids()[2]), 1u);
  EXPECT_EQ(pool.free_pages(), 0u);
  EXPECT_EQ(pool.pages_in_use(PageUse::kKv), 4u);
  prefix.Clear();
  EXPECT_EQ(pool.free_pages(), 1u);
  EXPECT_EQ(Check(pool, {&prefix, &branch}), absl::OkStatus());
  branch.Clear();
  EXPECT_EQ(pool.free_pages(), 4u);
}

TEST(PagePool, SharesFromAnyPlace) {
  PagePool pool(4, 1);
  PageList list(&pool, PageUse::kKv), middle(&pool, PageUse::kKv);
  ASSERT_TRUE(list.Grow(4));
  middle.Share(list, 2, 1);
  middle.Share(list, 1, 3);
  middle.Share(list, 4, 0);
  const std::span<const uint32_t> ids = list.ids();
  EXPECT_THAT(middle.ids(), ElementsAreArray({ids[2], ids[1], ids[2], ids[3]}));
  EXPECT_EQ(pool.references(ids[2]), 3u);
  EXPECT_EQ(Check(pool, {&list, &middle}), absl::OkStatus());
}

TEST(PagePool, ReplaceExchangesOnePageForAnother) {
  PagePool pool(4, 1);
  PageList kept(&pool, PageUse::kKv), own(&pool, PageUse::kKv);
  ASSERT_TRUE(kept.Grow(2) && own.Grow(2));
  const uint32_t dropped = own.ids()[0];
  own.Replace(0, kept, 1);
  EXPECT_EQ(own.ids()[0], kept.ids()[1]);
  EXPECT_EQ(pool.references(kept.ids()[1]), 2u);
  EXPECT_EQ(pool.references(dropped), 0u);
  EXPECT_EQ(pool.free_pages(), 1u);
  own.Replace(0, kept, 1);  // the same page
  own.Replace(1, own, 1);   // by itself, its only reference
  EXPECT_EQ(pool.references(own.ids()[1]), 1u);
  EXPECT_EQ(pool.free_pages(), 1u);
  EXPECT_EQ(Check(pool, {&kept, &own}), absl::OkStatus());
}

TEST(PagePool, AListMayShareItself) {
  PagePool pool(4, 1);
  PageList list(&pool, PageUse::kKv);
  ASSERT_TRUE(list.Grow(3));
  std::vector<uint32_t> twice = Ids(list);
  twice.insert(twice.end(), list.ids().begin(), list.ids().end());
  list.Share(list, 0, 3);
  EXPECT_THAT(list.ids(), ElementsAreArray(twice));
  EXPECT_EQ(Check(pool, {&list}), absl::OkStatus());
}

TEST(PagePool, MovingKeepsThePagesAndLeavesAnEmptyUsableList) {
  PagePool pool(6, 1);
  PageList from(&pool, PageUse::kKv);
  ASSERT_TRUE(from.Grow(2));
  const std::vector<uint32_t> ids = Ids(from);
  PageList to(std::move(from));
  EXPECT_EQ(Ids(to), ids);
  EXPECT_EQ(from.size(), 0u);  // NOLINT: the state is promised
  ASSERT_TRUE(from.Grow(3));
  from = std::move(to);  // gives its own three up
  EXPECT_EQ(Ids(from), ids);
  EXPECT_EQ(pool.free_pages(), 4u);
  PageList& same = from;
  from = std::move(same);
  EXPECT_EQ(Ids(from), ids);
  EXPECT_EQ(Check(pool, {&from, &to}), absl::OkStatus());
}

TEST(PagePool, DestructionOfAListFreesItsPages) {
  PagePool pool(2, 1);
  {
    PageList list(&pool, PageUse::kKv);
    ASSERT_TRUE(list.Grow(2));
  }
  EXPECT_EQ(pool.free_pages(), 2u);
  EXPECT_EQ(Check(pool, {}), absl::OkStatus());
}

TEST(PagePool, TellsWhatBecameFreeAndIsFreeStill) {
  PagePool pool(6, 4096);
  PageList list(&pool, PageUse::kKv), other(&pool, PageUse::kKv);
  ASSERT_TRUE(list.Grow(4));
  list.Truncate(3);
  EXPECT_THAT(pool.TakeFreed(), ElementsAre()) << "nobody asked for it";
  pool.NoteFreed();
  other.Share(list, 1, 1);
  list.Clear();
  EXPECT_THAT(pool.TakeFreed(), ElementsAre(0, 2)) << "1 has a reference left";
  other.Clear();
  ASSERT_TRUE(list.Grow(2));  // 1, just freed, and 0
  EXPECT_THAT(pool.TakeFreed(), ElementsAre());
  list.Clear();
  ASSERT_TRUE(list.Grow(1));
  list.Clear();
  EXPECT_THAT(pool.TakeFreed(), ElementsAre(0, 1));
}

TEST(PagePool, AListWithoutAPoolStaysEmpty) {
  PageList list;
  EXPECT_TRUE(list.Grow(0));
  list.Clear();
  EXPECT_EQ(list.size(), 0u);
  EXPECT_DEATH((void)list.Grow(1), "invariant broken");
}

TEST(PagePoolValidate, SeesAMissingADoubledAndAForeignList) {
  PagePool pool(4, 1), other(4, 1);
  PageList list(&pool, PageUse::kKv), foreign(&other, PageUse::kKv);
  ASSERT_TRUE(list.Grow(2));
  ASSERT_TRUE(foreign.Grow(1));
  EXPECT_THAT(std::string(Check(pool, {}).message()), HasSubstr("1 references, 0 list entries"));
  EXPECT_THAT(std::string(Check(pool, {&list, &list}).message()), HasSubstr("2 list entries"));
  EXPECT_THAT(std::string(Check(pool, {&list, &foreign}).message()), HasSubstr("another pool"));
  EXPECT_EQ(Check(pool, {&list}), absl::OkStatus());
}

TEST(PagePoolDeath, BrokenRequirementsAbort) {
  PagePool pool(4, 1), other(4, 1);
  PageList kv(&pool, PageUse::kKv), image(&pool, PageUse::kAdapter), far(&other, PageUse::kKv);
  ASSERT_TRUE(kv.Grow(2));
  EXPECT_DEATH(kv.Truncate(3), "invariant broken");
  EXPECT_DEATH(image.Share(kv, 0, 1), "invariant broken");
  EXPECT_DEATH(far.Share(kv, 0, 1), "invariant broken");
  EXPECT_DEATH(kv.Share(kv, 0, 3), "invariant broken");
  EXPECT_DEATH(kv.Share(kv, 3, 0), "invariant broken");
  EXPECT_DEATH(kv.Share(kv, 1, UINT32_MAX), "invariant broken");
  EXPECT_DEATH(kv.Replace(2, kv, 0), "invariant broken");
  EXPECT_DEATH(kv.Replace(0, kv, 2), "invariant broken");
  ASSERT_TRUE(image.Grow(1) && far.Grow(1));
  EXPECT_DEATH(kv.Replace(0, image, 0), "invariant broken");
  EXPECT_DEATH(kv.Replace(0, far, 0), "invariant broken");
  EXPECT_DEATH(
      {
        PageList left_over;
        PagePool short_lived(1, 1);
        left_over = PageList(&short_lived, PageUse::kKv);
        (void)left_over.Grow(1);
      },
      "invariant broken");
}

// Random operations on a few lists of both uses beside a model that knows only sequences of page
// numbers.
class PoolModel {
 public:
  explicit PoolModel(uint32_t seed) : random_(seed) {
    for (int i = 0; i < kLists; ++i) lists_.emplace_back(&pool_, UseOf(i));
  }

  void Step() {
    const int i = Below(kLists);
    switch (Below(6)) {
      case 0:
      case 1:
        return Grow(i, static_cast<uint32_t>(Below(8)));
      case 2:
        return Truncate(i);
      case 3:
        return Share(i, 2 * Below(kLists / 2) + i % 2);  // one of the same use
      case 4:
        return Replace(i, 2 * Below(kLists / 2) + i % 2);
      default:
        return Move(i, 2 * Below(kLists / 2) + i % 2);
    }
  }

  void Check() const {
    std::vector<const PageList*> all;
    std::array<std::set<uint32_t>, 2> used;
    for (int i = 0; i < kLists; ++i) {
      ASSERT_EQ(Ids(lists_[i]), model_[i]);
      used[i % 2].insert(model_[i].begin(), model_[i].end());
      all.push_back(&lists_[i]);
    }
    ASSERT_EQ(pool_.pages_in_use(PageUse::kKv), used[0].size());
    ASSERT_EQ(pool_.pages_in_use(PageUse::kAdapter), used[1].size());
    ASSERT_EQ(pool_.free_pages(), kPages - used[0].size() - used[1].size());
    ASSERT_EQ(pool_.Validate(all), absl::OkStatus());
  }

  int refused() const { return refused_; }

 private:
  static constexpr int kLists = 8;
  static constexpr uint32_t kPages = 40;
  static PageUse UseOf(int list) { return list % 2 == 0 ? PageUse::kKv : PageUse::kAdapter; }
  int Below(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }

  void Grow(int i, uint32_t n) {
    const uint32_t free_before = pool_.free_pages();
    std::set<uint32_t> used;
    for (const auto& ids : model_) used.insert(ids.begin(), ids.end());
    ASSERT_EQ(lists_[i].Grow(n), n <= free_before);
    if (n > free_before) {
      ++refused_;
      return;
    }
    ASSERT_EQ(lists_[i].size(), model_[i].size() + n);
    for (const uint32_t page : lists_[i].ids().subspan(model_[i].size())) {
      ASSERT_TRUE(page < kPages && used.insert(page).second) << "page " << page << " was not free";
      model_[i].push_back(page);
    }
  }
  void Truncate(int i) {
    const auto n = static_cast<uint32_t>(Below(static_cast<int>(model_[i].size()) + 1));
    lists_[i].Truncate(n);
    model_[i].resize(n);
  }
  void Share(int i, int from) {
    if (model_[i].size() > 60) return Truncate(i);
    const int first = Below(static_cast<int>(model_[from].size()) + 1);
    const int n = Below(std::min<int>(static_cast<int>(model_[from].size()) - first, 10) + 1);
    const auto begin = model_[from].begin() + first;
    const std::vector<uint32_t> shared(begin, begin + n);
    lists_[i].Share(lists_[from], static_cast<uint32_t>(first), static_cast<uint32_t>(n));
    model_[i].insert(model_[i].end(), shared.begin(), shared.end());
  }
  void Replace(int i, int from) {
    if (model_[i].empty() || model_[from].empty()) return;
    const auto to = static_cast<uint32_t>(Below(static_cast<int>(model_[i].size())));
    const auto at = static_cast<uint32_t>(Below(static_cast<int>(model_[from].size())));
    lists_[i].Replace(to, lists_[from], at);
    model_[i][to] = model_[from][at];
  }
  void Move(int i, int from) {
    lists_[i] = std::move(lists_[from]);
    if (i != from) model_[i] = std::exchange(model_[from], {});
  }

  std::mt19937 random_;
  PagePool pool_{kPages, 1};
  std::vector<PageList> lists_;
  std::array<std::vector<uint32_t>, kLists> model_;
  int refused_ = 0;
};

TEST(PagePoolProperty, BooksHoldUnderRandomOperations) {
  int refused = 0;
  for (uint32_t seed = 0; seed < 10; ++seed) {
    PoolModel model(seed);
    for (int step = 0; step < 10'000; ++step) {
      model.Step();
      model.Check();
      if (testing::Test::HasFatalFailure()) FAIL() << "seed " << seed << ", step " << step;
    }
    refused += model.refused();
  }
  EXPECT_GT(refused, 100);  // the pool was really full at times
}

}  // namespace
}  // namespace lorad
