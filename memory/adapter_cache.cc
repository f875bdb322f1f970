#include "memory/adapter_cache.h"

#include <fmt/format.h>

#include <utility>

#include "memory/base/check.h"

namespace lorad {
namespace {

// Weight of the latest load in seconds_per_page: a changed disk shows after a few loads, one slow
// load does not say much.
constexpr double kLatestLoad = 0.125;

}  // namespace

AdapterCache::AdapterCache(PagePool* pool, EvictionQueue* queue, double initial_seconds_per_page)
    : pool_(pool), queue_(queue), seconds_per_page_(initial_seconds_per_page) {}

AdapterCache::~AdapterCache() {
  for (const auto& [id, entry] : entries_) {
    if (entry->queued) queue_->Take(entry.get());
  }
}

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

bool AdapterCache::IsFilling(AdapterVersionId id) const {
  const Entry* entry = Find(id);
  return entry != nullptr && entry->filling;
}

bool AdapterCache::IsEvictable(AdapterVersionId id) const {
  const Entry* entry = Find(id);
  return entry != nullptr && entry->evictable();
}

bool AdapterCache::IsIdle(AdapterVersionId id) const {
  const Entry* entry = Find(id);
  return entry != nullptr && entry->idle();
}

bool AdapterCache::IsPinned(AdapterVersionId id) const {
  const Entry* entry = Find(id);
  return entry != nullptr && entry->pinned;
}

std::span<const uint32_t> AdapterCache::BeginLoad(AdapterVersionId id, uint32_t pages,
                                                  uint32_t available_pages, TimePoint now) {
  LORAD_CHECK(pages >= 1 && Find(id) == nullptr);
  // Asked first: an eviction that does not reach the goal would be work for nothing.
  if (pages > available_pages) return {};
  LORAD_CHECK(queue_->MakeRoom(pages));
  auto entry = std::make_unique<Entry>();
  entry->owner = this;
  entry->pages = pages;
  entry->id = id;
  entry->image = PageList(pool_, PageUse::kAdapter);
  entry->last_use = now;
  LORAD_CHECK(entry->image.Grow(pages));
  ++loading_;
  loading_pages_ += pages;
  return entries_.emplace(id, std::move(entry)).first->second->image.ids();
}

void AdapterCache::BeginFill(AdapterVersionId id, TimePoint now) {
  Entry& entry = Get(id);
  LORAD_CHECK(!entry.resident);
  --loading_;
  loading_pages_ -= entry.pages;
  entry.resident = entry.filling = true;
  entry.last_use = now;
  entry.awaited = true;  // by whoever it was loaded for: that use is counted here
  queue_->Use(&entry);
}

void AdapterCache::FinishLoad(AdapterVersionId id, double seconds, TimePoint now) {
  Entry& entry = Get(id);
  LORAD_CHECK((!entry.resident || entry.filling) && seconds >= 0);
  if (!entry.resident) BeginFill(id, now);
  entry.filling = false;
  entry.seconds = seconds;
  const double per_page = seconds / entry.pages;
  seconds_per_page_ =
      loads_ == 0 ? per_page : seconds_per_page_ + kLatestLoad * (per_page - seconds_per_page_);
  ++loads_;
  Settle(&entry);
}

void AdapterCache::AbortLoad(AdapterVersionId id) {
  Entry& entry = Get(id);
  LORAD_CHECK(!entry.resident);
  --loading_;
  loading_pages_ -= entry.pages;
  Forget(&entry);
}

std::span<const uint32_t> AdapterCache::Lease(AdapterVersionId id, TimePoint now) {
  Entry& entry = Get(id);
  LORAD_CHECK(entry.resident);
  leased_ += entry.leases++ == 0 ? 1 : 0;
  entry.last_use = now;
  if (!std::exchange(entry.awaited, false)) queue_->Use(&entry);
  Requeue(&entry);
  return entry.image.ids();
}

void AdapterCache::Release(AdapterVersionId id, TimePoint now) {
  Entry& entry = Get(id);
  LORAD_CHECK(entry.leases > 0);
  entry.last_use = now;
  if (--entry.leases > 0) return;
  --leased_;
  Settle(&entry);
}

void AdapterCache::SetPinned(AdapterVersionId id, bool pinned) {
  Entry& entry = Get(id);
  if (entry.pinned == pinned) return;
  entry.pinned = pinned;
  if (pinned) {
    ++pinned_;
    pinned_pages_ += entry.pages;
  } else {
    --pinned_;
    pinned_pages_ -= entry.pages;
  }
  Requeue(&entry);
}

void AdapterCache::SetSpared(AdapterVersionId id, bool spared) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  found->second->spared = spared;
  Requeue(found->second.get());
}

void AdapterCache::Retire(AdapterVersionId id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  Entry& entry = *found->second;
  if (!entry.idle()) {
    entry.retired = true;
    return;
  }
  if (entry.queued) {
    queue_->Take(&entry);
    evictable_pages_ -= entry.pages;
  }
  Leave(&entry);
}

void AdapterCache::Settle(Entry* entry) {
  if (entry->retired && entry->idle()) return Leave(entry);
  queue_->Touch(entry);
  Requeue(entry);
}

void AdapterCache::Requeue(Entry* entry) {
  if (entry->evictable() == entry->queued) return;
  if (entry->queued) {
    queue_->Take(entry);
    evictable_pages_ -= entry->pages;
  } else {
    queue_->Put(entry);
    evictable_pages_ += entry->pages;
  }
}

void AdapterCache::Evict(EvictionQueue::Item* item) {
  auto* entry = static_cast<Entry*>(item);
  evictable_pages_ -= entry->pages;
  ++evictions_;
  Leave(entry);
}

void AdapterCache::Forget(Entry* entry) {
  LORAD_CHECK(!entry->queued);
  if (entry->pinned) {
    --pinned_;
    pinned_pages_ -= entry->pages;
  }
  entries_.erase(entry->id);
}

void AdapterCache::Leave(Entry* entry) {
  left_.push_back(entry->id);
  Forget(entry);
}

std::vector<AdapterVersionId> AdapterCache::TakeEvicted() { return std::exchange(left_, {}); }

AdapterCache::Stats AdapterCache::stats() const {
  return {.loads = loads_,
          .evictions = evictions_,
          .loading = loading_,
          .resident = static_cast<uint32_t>(entries_.size()) - loading_,
          .leased = leased_,
          .pinned = pinned_,
          .pinned_pages = pinned_pages_};
}

std::vector<AdapterVersionId> AdapterCache::ids() const {
  std::vector<AdapterVersionId> ids;
  ids.reserve(entries_.size());
  for (const auto& [id, entry] : entries_) ids.push_back(id);
  return ids;
}

uint32_t AdapterCache::pages_of(AdapterVersionId id) const {
  const Entry* entry = Find(id);
  return entry == nullptr ? 0 : entry->pages;
}

TimePoint AdapterCache::last_use(AdapterVersionId id) const { return Get(id).last_use; }

std::vector<const PageList*> AdapterCache::page_lists() const {
  std::vector<const PageList*> lists;
  lists.reserve(entries_.size());
  for (const auto& [id, entry] : entries_) lists.push_back(&entry->image);
  return lists;
}

absl::Status AdapterCache::ValidateEntry(AdapterVersionId id, const Entry& entry) const {
  const auto wrong = [id](const char* what) {
    return absl::InternalError(fmt::format("adapter {}: {}", id, what));
  };
  if (entry.id != id || entry.owner != this) return wrong("is another's entry");
  if (entry.pages == 0 || entry.pages != entry.image.size() ||
      entry.image.use() != PageUse::kAdapter) {
    return wrong("does not hold its adapter pages");
  }
  if (!entry.resident && (entry.leases > 0 || entry.filling))
    return wrong("is used while it loads");
  if (entry.idle() && entry.retired) return wrong("is idle but retired");
  if (entry.queued != entry.evictable()) {
    return wrong(entry.queued ? "is queued but may not go" : "may go but is not queued");
  }
  return absl::OkStatus();
}

absl::Status AdapterCache::Validate() const {
  Stats counted;
  uint32_t evictable_pages = 0, loading_pages = 0, pages = 0;
  for (const auto& [id, entry] : entries_) {
    if (absl::Status status = ValidateEntry(id, *entry); !status.ok()) return status;
    counted.loading += entry->resident ? 0 : 1;
    counted.leased += entry->leases > 0 ? 1 : 0;
    counted.pinned += entry->pinned ? 1 : 0;
    counted.pinned_pages += entry->pinned ? entry->pages : 0;
    evictable_pages += entry->evictable() ? entry->pages : 0;
    loading_pages += entry->resident ? 0 : entry->pages;
    pages += entry->pages;
  }
  if (counted.loading != loading_ || counted.leased != leased_ || counted.pinned != pinned_) {
    return absl::InternalError(fmt::format(
        "adapter cache: counted {} loading, {} leased, {} pinned; the books say {}, {}, {}",
        counted.loading, counted.leased, counted.pinned, loading_, leased_, pinned_));
  }
  const uint32_t in_use = pool_->pages_in_use(PageUse::kAdapter);
  if (evictable_pages != evictable_pages_ || loading_pages != loading_pages_ ||
      counted.pinned_pages != pinned_pages_ || pages != in_use) {
    return absl::InternalError(fmt::format(
        "adapter cache: counted {} pages evictable, {} loading, {} pinned, {} in all; the books "
        "say {}, {}, {}, {}",
        evictable_pages, loading_pages, counted.pinned_pages, pages, evictable_pages_,
        loading_pages_, pinned_pages_, in_use));
  }
  return absl::OkStatus();
}

}  // namespace lorad
