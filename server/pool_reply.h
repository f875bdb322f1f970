// The engine's snapshot of the pool as Admin.GetPool answers it. Pure; any thread.
#pragma once

#include <lorad/v1/admin.pb.h>

#include <chrono>

#include "server/engine_snapshot.h"
#include "server/host_tier_report.h"

namespace lorad {

struct PoolGeometry {
  size_t page_bytes = 0;
  int page_tokens = 0;
};

// `rows`: the most of adapters and of tenants. `now`: when the snapshot was taken.
void FillPool(EngineSnapshot snapshot, const PoolGeometry& geometry, int rows,
              std::chrono::system_clock::time_point now, v1::Pool* out);
void FillHostTier(const HostTierReport& report, v1::Pool* out);

}  // namespace lorad
