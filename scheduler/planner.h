// Planner: decides what the next step runs. A pure function of a view of the serving state: no
// clock, no I/O, no memory of its own, so the same code runs in the daemon, in unit tests and in
// simulation. It decides; Engine::Commit alone changes the books.
//
// The rules, in this order:
//   1 Decode first. Every running sequence that has one token left to compute gets it; decode never
//   waits for prefill.
//   2 When decode needs a page and none can be had (free, held by an idle adapter, or kept only for
//   later prompts), the youngest running sequence is preempted: its pages may be evicted, it
//   returns to the queue, and goes on later from what is left of them.
//   3 Running prefills continue in order of arrival, each by at most a chunk, within the step's
//   token budget.
//   4 Nothing is admitted in a step that preempted (no thrash).
//   5 Waiting requests are admitted in order of arrival while budget, sequence slots and pages
//   last. What the prefix cache has of a request is neither computed nor paid for again. A request
//   whose adapter is not resident is passed over, and its adapter's load is started: a cold adapter
//   delays nobody else.
//   6 A request (or adapter load) for which the pages are lacking stops admission behind it, so it
//   is not passed by for ever. If nothing runs or loads that could give pages back, it can never
//   be had and is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lorad {

// A request's place in every list: requests are numbered in order of arrival.
using RequestId = uint64_t;

struct SchedulerPolicy {
  int max_step_tokens = 512;   // budget of a step, tokens
  int max_sequences = 256;     // running at a time
  int max_chunk_tokens = 256;  // of one prefill in one step
  int max_adapter_loads = 2;   // in flight
  int page_tokens = 16;        // tokens that a KV page holds
  uint32_t reserve_pages = 0;  // kept free at admission, for running sequences to grow into
};

struct RunningView {
  RequestId id = 0;
  int known_tokens = 0;     // prompt and output so far
  int computed_tokens = 0;  // of those, in the KV cache; < known_tokens
  int held_pages = 0;
  int releasable_pages = 0;  // of held_pages: those that nobody else holds
  bool paused = false;       // its reader is slow: keeps its pages, gets no tokens
};

enum class AdapterState : uint8_t { kNone, kStored, kLoading, kResident };  // kNone: base model

struct WaitingView {
  RequestId id = 0;
  int known_tokens = 0;
  AdapterState adapter_state = AdapterState::kNone;
  uint64_t adapter = 0;        // AdapterVersionId
  uint32_t adapter_pages = 0;  // of its image
  bool adapter_idle = false;   // resident, and its pages are counted in evictable_pages
  int cached_tokens = 0;       // of known_tokens: in the prefix cache; < known_tokens
  uint32_t cached_pages = 0;   // that it would share with the cache
  // Pages counted in evictable_pages that stop to be if it is admitted: shared ones that nobody
  // uses now, and the one that it would copy from.
  uint32_t cached_idle_pages = 0;
};

// Running by admission (oldest first), waiting by arrival.
struct PlannerView {
  std::span<const RunningView> running;
  std::span<const WaitingView> waiting;
  uint32_t free_pages = 0;
  uint32_t evictable_pages = 0;  // held by idle adapters or only by the prefix cache
  int adapter_loads_in_flight = 0;
};

struct StepPlan {
  struct Run {
    RequestId id = 0;
    int tokens = 0;          // to compute this step
    uint32_t new_pages = 0;  // to add to the sequence's table before
    bool operator==(const Run&) const = default;
  };
  std::vector<RequestId> preempt;       // first: youngest first
  std::vector<RequestId> admit;         // then: each is also in `run`
  std::vector<uint64_t> load_adapters;  // then
  std::vector<Run> run;                 // then; order of arrival
  std::vector<RequestId> refuse;        // will never fit into the pages that can be had
  void Clear();
  bool operator==(const StepPlan&) const = default;
};

// Pages that hold the keys and values of so many tokens.
constexpr uint32_t PagesFor(size_t tokens, int page_tokens) {
  const auto t = static_cast<size_t>(page_tokens);
  return static_cast<uint32_t>((tokens + t - 1) / t);
}

// Fills `plan` (reused to spare allocations).  REQUIRES: the policy's numbers are positive.
void PlanStep(const PlannerView& view, const SchedulerPolicy& policy, StepPlan* plan);

}  // namespace lorad
