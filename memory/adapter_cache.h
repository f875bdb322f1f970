// AdapterCache: which adapters' images are resident in the pool, who uses them, and which may go.
// An adapter image is
//   loading   pages taken, a loader thread writes them; never evicted
//   resident  usable; running requests hold it by leases; without one it is idle and, unless it is
//             pinned, may be evicted. It may be *filling* at first: in use while the copy into its
//             pages is still under way; then it is not idle
// An adapter that is not in the cache is *stored* (on disk only). Keys are version ids: a new
// version of an adapter is another key, so old and new never mix.
//
// Books. Every entry is loading, filling, leased or idle (resident, whole and without a lease).
// Idle entries that are not pinned, and no others, are in the eviction queue; an entry that is
// retired is never idle. `loading_`, `leased_`, `pinned_` and the sums of pages are over the
// entries. Validate() proves all of it.
//
// Thread: the engine's only. It does NOT read files or choose what to load. `now` never goes back
// between two calls.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "memory/base/clock.h"
#include "memory/eviction_queue.h"
#include "memory/page_pool.h"

namespace lorad {

using AdapterVersionId = uint64_t;  // unique for the life of the process

class AdapterCache final : public EvictionQueue::Owner {
 public:
  struct Stats {
    uint64_t loads = 0;      // loads that finished
    uint64_t evictions = 0;  // images that left to make room; not those that were retired
    uint32_t loading = 0;
    uint32_t resident = 0;  // leased ones included
    uint32_t leased = 0;
    uint32_t pinned = 0;  // loading ones included
    uint32_t pinned_pages = 0;
  };

  // `initial_seconds_per_page`: what seconds_per_page() says before anything was loaded.  REQUIRES:
  // pool and queue outlive the cache.
  AdapterCache(PagePool* pool, EvictionQueue* queue, double initial_seconds_per_page = 0);
  ~AdapterCache() override;

  bool IsResident(AdapterVersionId id) const;
  bool IsLoading(AdapterVersionId id) const;
  bool IsFilling(AdapterVersionId id) const;  // resident, too
  bool IsIdle(AdapterVersionId id) const;     // whole and without a lease, pinned or not
  bool IsEvictable(AdapterVersionId id) const;
  bool IsPinned(AdapterVersionId id) const;

  // Takes `pages` pages for a load, evicting if needed. Empty span: they cannot be had now, nothing
  // changed. The pages may be written by a loader until FinishLoad.  REQUIRES: id is not in the
  // cache, pages >= 1, `available_pages` is what free pages and eviction give in all.
  std::span<const uint32_t> BeginLoad(AdapterVersionId id, uint32_t pages, uint32_t available_pages,
                                      TimePoint now);
  // Loading -> filling: whoever uses it waits for what it reads.  REQUIRES: IsLoading(id).
  void BeginFill(AdapterVersionId id, TimePoint now);
  // Loading or filling -> whole, after a load that took `seconds` in all.
  void FinishLoad(AdapterVersionId id, double seconds, TimePoint now);
  // Loading -> gone.  REQUIRES: IsLoading(id).
  void AbortLoad(AdapterVersionId id);

  // Keeps a resident image where it is until the lease is released. Leases of one image count. A
  // retired image that is still here may be leased.  REQUIRES: IsResident(id).
  std::span<const uint32_t> Lease(AdapterVersionId id, TimePoint now);
  // REQUIRES: a lease on it that was not released.
  void Release(AdapterVersionId id, TimePoint now);

  // A pinned image is not evicted. Retire takes it all the same. It is the image that is pinned: to
  // pin what is not here, load it first.  REQUIRES: id is in the cache.
  void SetPinned(AdapterVersionId id, bool pinned);

  // Spared for a moment: not evicted, whatever it saves, until it is taken back. Nothing happens if
  // it is not in the cache.
  void SetSpared(AdapterVersionId id, bool spared);

  // The adapter is not wanted any more: its image goes now if idle, else with its last lease or at
  // FinishLoad, what comes later. Nothing happens if it is not in the cache.
  void Retire(AdapterVersionId id);

  // Pages that eviction could free, and pages that loaders write.
  uint32_t evictable_pages() const { return evictable_pages_; }
  uint32_t loading_pages() const { return loading_pages_; }
  // What loading a page takes: the mean of the loads so far, the last ones counting most.
  double seconds_per_page() const { return seconds_per_page_; }

  // Ids whose images left since the last call, evicted or retired, in that order of time. Not
  // aborted loads: their caller knows.
  std::vector<AdapterVersionId> TakeEvicted();
  Stats stats() const;
  std::vector<AdapterVersionId> ids() const;  // all that are in the cache, in no order
  // Pages held by `id`, 0 if absent.
  uint32_t pages_of(AdapterVersionId id) const;
  // When it was loaded, leased or released last.  REQUIRES: id is in the cache.
  TimePoint last_use(AdapterVersionId id) const;
  std::vector<const PageList*> page_lists() const;  // for PagePool::Validate
  absl::Status Validate() const;

  void Evict(EvictionQueue::Item* item) override;  // the queue's to call

 private:
  struct Entry : EvictionQueue::Item {
    AdapterVersionId id = 0;
    PageList image;
    bool resident = false;
    bool filling = false;
    bool retired = false;
    bool pinned = false;
    bool spared = false;
    uint32_t leases = 0;
    TimePoint last_use;

    bool idle() const { return resident && !filling && leases == 0; }
    bool evictable() const { return idle() && !pinned && !spared; }
  };
  const Entry* Find(AdapterVersionId id) const;  // null: not in the cache
  Entry& Get(AdapterVersionId id) const;         // REQUIRES: in the cache
  absl::Status ValidateEntry(AdapterVersionId id, const Entry& entry) const;
  // It may have become idle: it leaves if it is retired, else stands in the queue anew.
  void Settle(Entry* entry);
  // Brings its place in the queue in line with what it is now.
  void Requeue(Entry* entry);
  // Frees the pages and forgets the entry.  REQUIRES: not in the queue.
  void Forget(Entry* entry);
  void Leave(Entry* entry);  // Forget, and says so in TakeEvicted

  PagePool* const pool_;
  EvictionQueue* const queue_;
  absl::flat_hash_map<AdapterVersionId, std::unique_ptr<Entry>> entries_;
  uint32_t evictable_pages_ = 0;
  uint32_t loading_pages_ = 0;
  uint32_t pinned_pages_ = 0;
  uint32_t loading_ = 0;
  uint32_t leased_ = 0;
  uint32_t pinned_ = 0;
  double seconds_per_page_;
  std::vector<AdapterVersionId> left_;
  uint64_t loads_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace lorad
