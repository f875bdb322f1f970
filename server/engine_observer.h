// EngineObserver: what the engine tells whoever measures it. All calls are on the engine's thread
// and must be quick; those marked "a step" come once a step, whatever the batch.
#pragma once

#include <cstdint>
#include <span>

#include "memory/base/clock.h"
#include "scheduler/step_budget.h"
#include "server/request.h"

namespace lorad {

struct StepReport {
  int running = 0;
  int waiting = 0;
  int sequences = 0;       // in this step
  int prefill_tokens = 0;  // computed in this step
  int decode_tokens = 0;
  int sampled_tokens = 0;  // output tokens made in this step
  int adapters = 0;        // distinct, in this step
  // Sequences that lost their places: for want of pages, to more urgent requests, and because their
  // readers are slow.
  int preemptions = 0;
  int gave_way = 0;
  int parked = 0;
  int overtakes = 0;       // of waiting requests by others that were admitted
  int queried_tokens = 0;  // of prompts admitted in this step: that the prefix cache was asked for
  int cached_tokens = 0;   // and that it had
  int prefix_evictions = 0;  // pages
  Duration plan{};
  Duration execute{};
};

struct GaugeReport {
  int running = 0;
  int waiting = 0;
  int parked = 0;  // lost their places because their readers are slow
  // By state; they add up to pages_total. pages_kv: of running sequences, pages_kv_cached: kept for
  // later prompts, pages_adapter: resident, pages_loading: being written.
  uint32_t pages_total = 0, pages_free = 0, pages_kv = 0, pages_kv_cached = 0, pages_adapter = 0,
           pages_loading = 0;
  uint32_t pages_adapter_idle = 0;    // of pages_adapter: can be had at once
  uint32_t pages_adapter_pinned = 0;  // of pages_adapter
  // Bytes of pages that hold nothing: of keys and values, slots of running sequences that no token
  // has yet; of adapters, ends of images and of pages that no row fits in.
  uint64_t waste_kv_bytes = 0, waste_adapter_bytes = 0;
  double tenant_spread = 0;     // see TenantLedger::spread, tokens
  int pinned_requests = 0;      // that have been overtaken too often
  bool adapter_drains = false;  // for one of them
  StepBudget budget;            // of the step that was planned last
  uint32_t adapters_loading = 0, adapters_resident = 0, adapters_in_use = 0, adapters_pinned = 0;
};

class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void OnStep(const StepReport&) {}     // a step
  virtual void OnGauges(const GaugeReport&) {}  // a step
  // A step and class: seconds between tokens of each decoding sequence.
  virtual void OnInterToken(Priority, std::span<const double>) {}
  // It got its place in the batch; again after a preemption.
  virtual void OnAdmit(const GenerationRequest&) {}
  virtual void OnFirstToken(const GenerationRequest&, Duration /*queue*/, Duration /*ttft*/) {}
  virtual void OnFinish(const GenerationRequest&, const StreamEnd&) {}
  virtual void OnAdapterLoad(const AdapterVersion&, Duration, const absl::Status&) {}
  virtual void OnEvictions(int /*adapters*/) {}
  // The state of this adapter changed: it began to load, became resident, left the pool.
  virtual void OnAdapterState(const std::string& /*name*/) {}
};

}  // namespace lorad
