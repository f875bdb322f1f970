// EngineSnapshot: who holds what in the pool, at one boundary between two steps. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memory/adapter_cache.h"
#include "memory/base/clock.h"
#include "scheduler/planner.h"
#include "server/engine_observer.h"

namespace lorad {

struct EngineSnapshot {
  struct Adapter {
    AdapterVersionId id = 0;
    std::string name;  // "foo" or "acme/foo"
    int64_t version = 0;
    AdapterState state = AdapterState::kStored;
    bool pinned = false;
    uint32_t pages = 0;
    uint64_t image_bytes = 0;  // at most pages * page_bytes: the rest is waste
    uint32_t kv_pages = 0;     // of running sequences that use it
    uint32_t kv_cached_pages = 0;
    int running = 0;
    int waiting = 0;
    Duration idle{};  // since the last use
  };
  struct Tenant {
    std::string name;       // empty: of no tenant
    uint32_t kv_pages = 0;  // of its running sequences; one that several share counts for each
    uint32_t kv_cached_pages = 0;
    uint32_t adapter_pages = 0;
  };
  GaugeReport gauges;
  std::vector<Adapter> adapters;        // those that hold pages
  std::vector<Tenant> tenants;          // those that hold pages, the most first
  double seconds_per_token = 0;         // measured: of computing a prompt's token
  double seconds_per_adapter_page = 0;  // measured: of loading an adapter's page
  bool draining = false;
};

}  // namespace lorad
