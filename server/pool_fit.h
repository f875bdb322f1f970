// PoolFit: how many more of a thing fit in the pool. Pure; any thread.
#pragma once

#include <cstdint>

#include "server/engine_observer.h"

namespace lorad {

// So many fit in the pages that are free, in those that can be had at once (free, of idle adapters,
// kept for later prompts), and in an empty pool. 0 if one takes no page, that is: was not asked
// for.
struct PoolFit {
  int64_t in_free_pages = 0;
  int64_t in_available_pages = 0;
  int64_t in_pool = 0;

  bool operator==(const PoolFit&) const = default;
};

inline PoolFit FitOf(int64_t pages, const GaugeReport& pool) {
  if (pages <= 0) return {};
  const int64_t available =
      int64_t{pool.pages_free} + pool.pages_adapter_idle + pool.pages_kv_cached;
  return {.in_free_pages = pool.pages_free / pages,
          .in_available_pages = available / pages,
          .in_pool = pool.pages_total / pages};
}

}  // namespace lorad
