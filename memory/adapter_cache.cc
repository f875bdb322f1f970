#include "memory/adapter_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "memory/base/check.h"

namespace lorad {

AdapterCache::AdapterCache(PagePool* pool) : pool_(pool) {}

const AdapterCache::Entry* AdapterCache::Find(AdapterVersionId id) const {
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : found->second.get();
}

AdapterCache::Entry& AdapterCache::Get(AdapterVersionId id) const {
  const auto found = entries_.find(id);
  LORAD_CHECK(found != entries_.end());
  return *found->second;
}

bool AdapterCache::IsResident(AdapterVersionId id) const {
  const Entry* entry = Find(id);
  return entry != nullptr && entry->resident;
}

bool AdapterCache::IsLoading(AdapterVersionId id) const {
  const Entry* entry = Find(id);
  return entry != nullptr && !entry->resident;
}

bool AdapterCache::IsIdle(AdapterVersionId id) const {
  const Entry* entry = Find(id);
  return entry != nullptr && entry->resident && entry->leases == 0;
}

std::span<const uint32_t> AdapterCache::BeginLoad(AdapterVersionId id, uint32_t pages,
                                                  TimePoint now) {
  LORAD_CHECK(pages >= 1 && Find(id) == nullptr);
  // Asked first: an eviction that does not reach the goal would be a reload for nothing.
  if (uint64_t{pool_->free_pages()} + idle_pages_ < pages) return {};
  LORAD_CHECK(MakeRoom(pages));
  auto entry = std::make_unique<Entry>();
  entry->pages = PageList(pool_, PageUse::kAdapter);
  entry->last_use = now;
  LORAD_CHECK(entry->pages.Grow(pages));
  ++loading_;
  return entries_.emplace(id, std::move(entry)).first->second->pages.ids();
}

void AdapterCache::FinishLoad(AdapterVersionId id, TimePoint now) {
  Entry& entry = Get(id);
  LORAD_CHECK(!entry.resident);
  ++loads_;
  --loading_;
  entry.resident = true;
  entry.last_use = now;
  if (entry.retired) {
    Leave(id);
  } else {
    BecomeIdle(id, &entry);
  }
}

void AdapterCache::AbortLoad(AdapterVersionId id) {
  LORAD_CHECK(!Get(id).resident);
  --loading_;
  entries_.erase(id);
}

std::span<const uint32_t> AdapterCache::Lease(AdapterVersionId id, TimePoint now) {
  Entry& entry = Get(id);
  LORAD_CHECK(entry.resident);
  if (entry.leases++ == 0) {
    StopIdle(&entry);
    ++leased_;
  }
  entry.last_use = now;
  return entry.pages.ids();
}

void AdapterCache::Release(AdapterVersionId id, TimePoint now) {
  Entry& entry = Get(id);
  LORAD_CHECK(entry.leases > 0);
  entry.last_use = now;
  if (--entry.leases > 0) return;
  --leased_;
  if (entry.retired) {
    Leave(id);
  } else {
    BecomeIdle(id, &entry);
  }
}

void AdapterCache::Retire(AdapterVersionId id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  Entry& entry = *found->second;
  if (entry.resident && entry.leases == 0) {
    StopIdle(&entry);
    Leave(id);
  } else {
    entry.retired = true;
  }
}

bool AdapterCache::MakeRoom(uint32_t free_pages, std::span<const AdapterVersionId> keep) {
  for (auto at = idle_.begin(); at != idle_.end() && pool_->free_pages() < free_pages;) {
    const AdapterVersionId id = *at++;  // before StopIdle takes it off the list
    if (std::find(keep.begin(), keep.end(), id) != keep.end()) continue;
    StopIdle(&Get(id));
    Leave(id);
    ++evictions_;
  }
  return pool_->free_pages() >= free_pages;
}

void AdapterCache::BecomeIdle(AdapterVersionId id, Entry* entry) {
  entry->idle = idle_.insert(idle_.end(), id);
  idle_pages_ += entry->pages.size();
}

void AdapterCache::StopIdle(Entry* entry) {
  idle_.erase(entry->idle);
  idle_pages_ -= entry->pages.size();
}

void AdapterCache::Leave(AdapterVersionId id) {
  entries_.erase(id);
  left_.push_back(id);
}

std::vector<AdapterVersionId> AdapterCache::TakeEvicted() { return std::exchange(left_, {}); }

AdapterCache::Stats AdapterCache::stats() const {
  return {.loads = loads_,
          .evictions = evictions_,
          .loading = loading_,
          .resident = static_cast<uint32_t>(entries_.size()) - loading_,
          .leased = leased_};
}

uint32_t AdapterCache::pages_of(AdapterVersionId id) const {
  const Entry* entry = Find(id);
  return entry == nullptr ? 0 : entry->pages.size();
}

TimePoint AdapterCache::last_use(AdapterVersionId id) const { return Get(id).last_use; }

std::vector<const PageList*> AdapterCache::page_lists() const {
  std::vector<const PageList*> lists;
  lists.reserve(entries_.size());
  for (const auto& [id, entry] : entries_) lists.push_back(&entry->pages);
  return lists;
}

absl::Status AdapterCache::Validate() const {
  uint32_t loading = 0, leased = 0, idle = 0, idle_pages = 0, pages = 0;
  for (const auto& [id, entry] : entries_) {
    const bool is_idle = entry->resident && entry->leases == 0;
    if (entry->pages.size() == 0 || entry->pages.use() != PageUse::kAdapter) {
      return absl::InternalError(fmt::format("adapter {} holds no adapter pages", id));
    }
    if (!entry->resident && entry->leases > 0) {
      return absl::InternalError(fmt::format("adapter {} is leased while it loads", id));
    }
    if (is_idle && (entry->retired || *entry->idle != id)) {
      return absl::InternalError(fmt::format("adapter {} is idle but retired or misplaced", id));
    }
    loading += entry->resident ? 0 : 1;
    leased += entry->leases > 0 ? 1 : 0;
    idle += is_idle ? 1 : 0;
    idle_pages += is_idle ? entry->pages.size() : 0;
    pages += entry->pages.size();
  }
  if (loading != loading_ || leased != leased_ || idle != idle_.size() ||
      idle_pages != idle_pages_ || pages != pool_->pages_in_use(PageUse::kAdapter)) {
    return absl::InternalError(
        fmt::format("adapter cache: counted {} loading, {} leased, {} idle, {} idle pages, {} "
                    "pages; the books say {}, {}, {}, {}, {}",
                    loading, leased, idle, idle_pages, pages, loading_, leased_, idle_.size(),
                    idle_pages_, pool_->pages_in_use(PageUse::kAdapter)));
  }
  TimePoint before = TimePoint::min();
  for (const AdapterVersionId id : idle_) {
    const Entry* entry = Find(id);
    if (entry == nullptr || !entry->resident || entry->leases > 0 || entry->last_use < before) {
      return absl::InternalError(fmt::format("idle list: adapter {} is out of place", id));
    }
    before = entry->last_use;
  }
  return absl::OkStatus();
}

}  // namespace lorad
