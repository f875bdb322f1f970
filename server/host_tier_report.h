// HostTierReport: what adapters take in host memory. Plain data; all zero where there is no such
// tier.
#pragma once

#include <cstdint>

namespace lorad {

struct HostTierReport {
  uint64_t bytes = 0;
  uint64_t capacity_bytes = 0;
  uint32_t adapters = 0;
  // Since the server started.
  uint64_t hits = 0;       // loads that found their image there
  uint64_t misses = 0;     // and that had to read it from disk
  uint64_t evictions = 0;  // images that made room for others
};

}  // namespace lorad
