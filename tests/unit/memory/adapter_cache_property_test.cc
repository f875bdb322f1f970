// Random operations on an AdapterCache, beside KV lists in the same pool and a model that is too
// simple to be wrong.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "memory/adapter_cache.h"

namespace lorad {
namespace {

class CacheModel {
 public:
  explicit CacheModel(uint32_t seed) : random_(seed) {
    for (int i = 0; i < 3; ++i) kv_.emplace_back(&pool_, PageUse::kKv);
  }

  void Step() {
    now_ += Duration(Below(2));  // time may stand still
    const AdapterVersionId id = 1 + static_cast<AdapterVersionId>(Below(12));
    const auto found = model_.find(id);
    if (found == model_.end()) return BeginLoad(id);
    Adapter& adapter = found->second;
    switch (Below(8)) {
      case 0:
        return Retire(id, &adapter);
      case 1:
        return MakeRoom();
      case 2:
        return ChangeKv();
      case 3:
        return Pin(id, &adapter);
      default:
        break;
    }
    if (adapter.loading) return EndLoad(id, &adapter);
    if (adapter.filling && Below(2) == 0) return EndFill(id, &adapter);
    if (adapter.leases > 0 && Below(2) == 0) return Release(id, &adapter);
    Lease(id, &adapter);
  }

  void Check() {
    uint32_t pages = 0, evictable_pages = 0, loading = 0, leased = 0;
    uint32_t loading_pages = 0, pinned = 0, pinned_pages = 0;
    for (AdapterVersionId id = 1; id <= 12; ++id) {
      const auto found = model_.find(id);
      const bool here = found != model_.end();
      const Adapter adapter = here ? found->second : Adapter{};
      ASSERT_EQ(cache_.IsLoading(id), here && adapter.loading);
      ASSERT_EQ(cache_.IsResident(id), here && !adapter.loading);
      ASSERT_EQ(cache_.IsFilling(id), adapter.filling);
      ASSERT_EQ(cache_.IsIdle(id), here && adapter.idle());
      ASSERT_EQ(cache_.IsEvictable(id), here && adapter.evictable());
      ASSERT_EQ(cache_.IsPinned(id), adapter.pinned);
      ASSERT_EQ(cache_.pages_of(id), adapter.pages);
      if (here) {
        ASSERT_EQ(cache_.last_use(id), adapter.last_use);
      }
      pages += adapter.pages;
      evictable_pages += here && adapter.evictable() ? adapter.pages : 0;
      loading_pages += adapter.loading ? adapter.pages : 0;
      pinned += adapter.pinned;
      pinned_pages += adapter.pinned ? adapter.pages : 0;
      loading += here && adapter.loading;
      leased += adapter.leases > 0;
    }
    ASSERT_EQ(cache_.evictable_pages(), evictable_pages);
    ASSERT_EQ(cache_.loading_pages(), loading_pages);
    ASSERT_EQ(cache_.ids().size(), model_.size());
    ASSERT_EQ(pool_.pages_in_use(PageUse::kAdapter), pages);
    const AdapterCache::Stats stats = cache_.stats();
    ASSERT_EQ(stats.loading, loading);
    ASSERT_EQ(stats.leased, leased);
    ASSERT_EQ(stats.pinned, pinned);
    ASSERT_EQ(stats.pinned_pages, pinned_pages);
    ASSERT_EQ(stats.resident, model_.size() - loading);
    ASSERT_EQ(stats.evictions, evictions_);
    ASSERT_EQ(cache_.TakeEvicted(), left_);
    left_.clear();
    ASSERT_EQ(cache_.Validate(), absl::OkStatus());
    ASSERT_EQ(queue_.Validate(), absl::OkStatus());
    std::vector<const PageList*> lists = cache_.page_lists();
    for (const PageList& list : kv_) lists.push_back(&list);
    ASSERT_EQ(pool_.Validate(lists), absl::OkStatus());
  }

  uint64_t evictions() const { return evictions_; }
  int refused() const { return refused_; }

 private:
  struct Adapter {
    uint32_t pages = 0;
    bool loading = false, filling = false, retired = false, pinned = false, awaited = false,
         newcomer = true;
    int leases = 0;
    TimePoint last_use;
    double seconds = 0, uses = 0, used_at = 0, score = 0;
    uint64_t order = 0;  // when it was scored last
    std::vector<uint32_t> ids;
    bool idle() const { return !loading && !filling && leases == 0; }
    bool evictable() const { return idle() && !pinned; }
  };

  int Below(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }

  // The adapter that should go next, or 0.
  AdapterVersionId Least() const {
    AdapterVersionId least = 0;
    for (const auto& [id, adapter] : model_) {
      if (!adapter.evictable()) continue;
      if (least == 0 || std::pair(adapter.score, adapter.order) <
                            std::pair(model_.at(least).score, model_.at(least).order)) {
        least = id;
      }
    }
    return least;
  }

  void Use(Adapter* adapter) {
    adapter->uses = 1 + adapter->uses * std::exp2((adapter->used_at - turns_) / 0.25);
    if (adapter->uses > 1) Learn(adapter, 1);
    Score(adapter);
  }

  void Score(Adapter* adapter) {
    const double expected = adapter->newcomer && !adapter->awaited ? again_ : 1;
    adapter->used_at = turns_;
    adapter->score =
        std::log2(expected * adapter->uses * adapter->seconds / adapter->pages) + turns_ / 0.25;
    adapter->order = ++order_;
  }

  void Learn(Adapter* adapter, double outcome) {
    if (!std::exchange(adapter->newcomer, false)) return;
    again_ += std::min(1.0, adapter->pages / (0.25 * kPages)) * (outcome - again_);
  }

  void Leave(AdapterVersionId id) {
    left_.push_back(id);
    model_.erase(id);
  }

  void ExpectEvictions(uint32_t goal) {
    uint32_t free_pages = kPages - KvPages();
    for (const auto& [id, adapter] : model_) free_pages -= adapter.pages;
    for (AdapterVersionId id; free_pages < goal && (id = Least()) != 0;) {
      free_pages += model_.at(id).pages;
      turns_ += static_cast<double>(model_.at(id).pages) / kPages;
      Learn(&model_.at(id), 0);
      Leave(id);
      ++evictions_;
    }
  }

  uint32_t KvPages() const {
    uint32_t pages = 0;
    for (const PageList& list : kv_) pages += list.size();
    return pages;
  }

  void BeginLoad(AdapterVersionId id) {
    const auto pages = static_cast<uint32_t>(1 + Below(9));
    uint32_t held = KvPages();
    for (const auto& [other, adapter] : model_) held += adapter.evictable() ? 0 : adapter.pages;
    const bool fits = held + pages <= kPages;
    if (fits) ExpectEvictions(pages);
    const std::span<const uint32_t> ids = cache_.BeginLoad(id, pages, kPages - held, now_);
    ASSERT_EQ(ids.size(), fits ? pages : 0);
    if (!fits) {
      ++refused_;
      return;
    }
    Adapter& adapter = model_[id];
    adapter.pages = pages;
    adapter.loading = true;
    adapter.last_use = now_;
    adapter.ids.assign(ids.begin(), ids.end());
  }

  void EndLoad(AdapterVersionId id, Adapter* adapter) {
    if (Below(4) == 0) {
      cache_.AbortLoad(id);
      model_.erase(id);
      return;
    }
    adapter->loading = false;
    adapter->last_use = now_;
    adapter->awaited = true;
    adapter->filling = Below(3) == 0;
    if (!adapter->filling) return EndFill(id, adapter);
    cache_.BeginFill(id, now_);
    Use(adapter);
  }

  void EndFill(AdapterVersionId id, Adapter* adapter) {
    if (!adapter->filling) Use(adapter);  // at once
    adapter->filling = false;
    adapter->seconds = Below(4) * adapter->pages * 0.25;  // ties are likely
    cache_.FinishLoad(id, adapter->seconds, now_);
    if (adapter->retired && adapter->leases == 0) return Leave(id);
    Score(adapter);
  }

  void Lease(AdapterVersionId id, Adapter* adapter) {
    const std::span<const uint32_t> ids = cache_.Lease(id, now_);
    ASSERT_TRUE(std::equal(ids.begin(), ids.end(), adapter->ids.begin(), adapter->ids.end()));
    ++adapter->leases;
    adapter->last_use = now_;
    if (!std::exchange(adapter->awaited, false)) Use(adapter);
  }

  void Release(AdapterVersionId id, Adapter* adapter) {
    cache_.Release(id, now_);
    adapter->last_use = now_;
    if (--adapter->leases > 0) return;
    if (adapter->retired && !adapter->filling) return Leave(id);
    Score(adapter);
  }

  void Pin(AdapterVersionId id, Adapter* adapter) {
    adapter->pinned = Below(4) == 0;
    cache_.SetPinned(id, adapter->pinned);
  }

  void Retire(AdapterVersionId id, Adapter* adapter) {
    cache_.Retire(id);
    if (adapter->idle()) {
      Leave(id);
    } else {
      adapter->retired = true;
    }
  }

  void MakeRoom() {
    const auto goal = static_cast<uint32_t>(Below(kPages / 2));
    ExpectEvictions(goal);
    const bool reached = queue_.MakeRoom(goal);
    ASSERT_EQ(reached, pool_.free_pages() >= goal);
  }

  void ChangeKv() {
    PageList& list = kv_[static_cast<size_t>(Below(3))];
    if (Below(2) == 0) {
      list.Truncate(static_cast<uint32_t>(Below(static_cast<int>(list.size()) + 1)));
    } else {
      (void)list.Grow(static_cast<uint32_t>(Below(4)));
    }
  }

  static constexpr int kPages = 32;
  std::mt19937 random_;
  TimePoint now_{};
  PagePool pool_{kPages, 1};
  std::vector<PageList> kv_;
  EvictionQueue queue_{&pool_};
  AdapterCache cache_{&pool_, &queue_};
  std::map<AdapterVersionId, Adapter> model_;
  std::vector<AdapterVersionId> left_;
  uint64_t evictions_ = 0, order_ = 0;
  double turns_ = 0, again_ = 0.1;
  int refused_ = 0;
};

TEST(AdapterCacheProperty, BehavesLikeTheModel) {
  uint64_t evictions = 0;
  int refused = 0;
  for (uint32_t seed = 0; seed < 10; ++seed) {
    CacheModel model(seed);
    for (int step = 0; step < 5'000; ++step) {
      model.Step();
      model.Check();
      if (testing::Test::HasFatalFailure()) FAIL() << "seed " << seed << ", step " << step;
    }
    evictions += model.evictions();
    refused += model.refused();
  }
  EXPECT_GT(evictions, 1000u);  // the interesting things did happen
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace lorad
