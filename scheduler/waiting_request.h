// WaitingRequest: what the scheduler knows of a request that waits. Plain data.
#pragma once

#include <cstdint>

#include "memory/adapter_cache.h"
#include "memory/base/clock.h"
#include "scheduler/priority.h"
#include "scheduler/tenant_ledger.h"

namespace lorad {

// A request's place in every list: requests are numbered in order of arrival.
using RequestId = uint64_t;

enum class AdapterState : uint8_t { kNone, kStored, kLoading, kResident };  // kNone: base model

struct WaitingRequest {
  RequestId id = 0;
  TenantIndex tenant = 0;
  Priority priority = Priority::kStandard;
  TimePoint arrival;
  int known_tokens = 0;          // prompt, and what was generated before a preemption
  int left_tokens = 0;           // that it may generate yet, at most; 0: it is only scored
  AdapterVersionId adapter = 0;  // 0: base model
  uint32_t adapter_pages = 0;    // of its image
  uint64_t adapter_bytes = 0;
  int preemptions = 0;
  // One of several samples of a request: its first one, whose pages it shares and beside which it
  // should run; 0: it is alone. Always so yet.
  RequestId sample_of = 0;

  // The queue's: how often somebody behind it was admitted, and since when.
  int overtakes = 0;
  TimePoint overtaken_since;
};

}  // namespace lorad
