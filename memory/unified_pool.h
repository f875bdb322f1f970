// UnifiedPool: the one pool that KV cache, prefix cache and adapters share, with everything that
// keeps its books. It ties the parts together and proves that together they account for every page;
// the parts do the work.
//
// Thread: the engine's only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "memory/adapter_cache.h"
#include "memory/eviction_queue.h"
#include "memory/page_pool.h"
#include "memory/prefix_cache.h"

namespace lorad {

class UnifiedPool {
 public:
  struct Options {
    int page_tokens = 16;
    bool prefix_cache = true;
    double initial_seconds_per_page = 0;  // see AdapterCache::seconds_per_page
  };
  // Pages by state; each page is in exactly one. They add up to `total`.
  struct States {
    uint32_t total = 0;
    uint32_t free = 0;
    uint32_t kv = 0;         // referenced by running sequences (or by their leases)
    uint32_t kv_cached = 0;  // only the prefix cache knows them
    uint32_t adapter = 0;    // resident
    uint32_t loading = 0;    // of adapters, being written
  };

  UnifiedPool(uint32_t pages, size_t page_bytes, Options options);

  PagePool& pages() { return pages_; }
  AdapterCache& adapters() { return adapters_; }
  PrefixCache& prefixes() { return prefixes_; }
  const PagePool& pages() const { return pages_; }
  const AdapterCache& adapters() const { return adapters_; }
  const PrefixCache& prefixes() const { return prefixes_; }

  // Free, or had by evicting: what a plan may count on.
  uint32_t available_pages() const;
  // Evicts, in the order of the one queue, until so many are free. True if they are.
  bool MakeRoom(uint32_t free_pages) { return queue_.MakeRoom(free_pages); }

  States states() const;
  // Proves the books of all parts, and that `sequences` (the page tables of all sequences), adapter
  // images and prefix nodes are all the references there are.
  absl::Status Validate(std::span<const PageList* const> sequences) const;

 private:
  PagePool pages_;
  EvictionQueue queue_;  // after the pool, before what stands in it
  AdapterCache adapters_;
  PrefixCache prefixes_;
};

}  // namespace lorad
