// AdapterCache: which adapters' images are resident in the pool, who uses them, and which may go.
// An adapter image is
//   loading   pages taken, a loader thread writes them; never evicted
//   resident  usable; running requests pin it by leases; without one it is idle and may be evicted
// An adapter that is not in the cache is *stored* (on disk only). Keys are version ids: a new
// version of an adapter is another key, so old and new never mix.
//
// Books. Every entry is loading, leased or idle (resident without a lease). Idle entries, and no
// others, are on the list `idle_`, the one that has been idle longest in front; an entry that is
// retired is never idle. `loading_`, `leased_` and `idle_pages_` are sums over the entries.
// Validate() proves all of it.
//
// Thread: the engine's only. It does NOT read files or choose what to load. `now` never goes back
// between two calls.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "memory/base/clock.h"
#include "memory/page_pool.h"

namespace lorad {

using AdapterVersionId = uint64_t;  // unique for the life of the process

class AdapterCache {
 public:
  struct Stats {
    uint64_t loads = 0;      // loads that finished
    uint64_t evictions = 0;  // images that left to make room; not those that were retired
    uint32_t loading = 0;
    uint32_t resident = 0;  // leased ones included
    uint32_t leased = 0;
  };

  explicit AdapterCache(PagePool* pool);

  bool IsResident(AdapterVersionId id) const;
  bool IsLoading(AdapterVersionId id) const;
  bool IsIdle(AdapterVersionId id) const;  // resident without a lease: its pages count as evictable

  // Takes `pages` pages for a load, evicting idle adapters if needed. Empty span: they cannot be
  // had now, nothing changed. The pages may be written by a loader until FinishLoad.  REQUIRES: id
  // is not in the cache, pages >= 1.
  std::span<const uint32_t> BeginLoad(AdapterVersionId id, uint32_t pages, TimePoint now);
  // Loading -> resident, and loading -> gone.  REQUIRES of both: IsLoading(id).
  void FinishLoad(AdapterVersionId id, TimePoint now);
  void AbortLoad(AdapterVersionId id);

  // Pins a resident image; its pages stay where they are until the lease is released. Leases of one
  // image count. A retired image that is still here may be leased.  REQUIRES: IsResident(id).
  std::span<const uint32_t> Lease(AdapterVersionId id, TimePoint now);
  // REQUIRES: a lease on it that was not released.
  void Release(AdapterVersionId id, TimePoint now);

  // The adapter is not wanted any more: its image goes now if idle, else with its last lease (or at
  // FinishLoad). Nothing happens if it is not in the cache.
  void Retire(AdapterVersionId id);

  // Evicts idle adapters, least recently used first, until the pool has `free_pages` free pages or
  // none is left to evict. `keep`: ids that must stay. Returns true if the goal was reached.
  bool MakeRoom(uint32_t free_pages, std::span<const AdapterVersionId> keep = {});
  // Pages that MakeRoom could free.
  uint32_t evictable_pages() const { return idle_pages_; }

  // Ids whose images left since the last call, evicted or retired, in that order of time. Not
  // aborted loads: their caller knows.
  std::vector<AdapterVersionId> TakeEvicted();
  Stats stats() const;
  // Pages held by `id`, 0 if absent.
  uint32_t pages_of(AdapterVersionId id) const;
  // When it was loaded, leased or released last.  REQUIRES: id is in the cache.
  TimePoint last_use(AdapterVersionId id) const;
  std::vector<const PageList*> page_lists() const;  // for PagePool::Validate
  absl::Status Validate() const;

 private:
  struct Entry {
    PageList pages;
    bool resident = false;
    bool retired = false;
    uint32_t leases = 0;
    TimePoint last_use;
    std::list<AdapterVersionId>::iterator idle;  // its place in idle_, if idle
  };
  const Entry* Find(AdapterVersionId id) const;  // null: not in the cache
  Entry& Get(AdapterVersionId id) const;         // REQUIRES: in the cache
  void BecomeIdle(AdapterVersionId id, Entry* entry);
  void StopIdle(Entry* entry);
  void Leave(AdapterVersionId id);  // frees the pages of an entry that is not idle

  PagePool* const pool_;
  absl::flat_hash_map<AdapterVersionId, std::unique_ptr<Entry>> entries_;
  std::list<AdapterVersionId> idle_;  // least recently used in front
  uint32_t idle_pages_ = 0;
  uint32_t loading_ = 0;
  uint32_t leased_ = 0;
  std::vector<AdapterVersionId> left_;
  uint64_t loads_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace lorad
