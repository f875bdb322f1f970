// Replays a trace against the real pool in virtual time. What is simulated is the rest: a request
// starts when the pool has room for it (in order of arrival), takes the time of its load, of its
// prompt's uncached tokens and of its answer, and keeps its pages until then. Loads, prefills and
// steps of different requests do not slow each other down.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/bench/eviction/trace.h"

namespace lorad::bench {

// A model on a machine.
struct Machine {
  const char* name;
  double token_s;         // of computing a prompt's token
  double adapter_page_s;  // of loading a page of an adapter
  double step_s;          // of a token of an answer
  double adapter_pages_per_rank;
};

struct Policy {
  std::string name;
  bool lru = false;           // least recently used first, instead of lorad's scores
  double adapter_share = 0;   // of the pool, fixed; 0: one pool for both
  bool drop_at_once = false;  // an adapter that nobody uses goes; no prefix is kept
};

struct Result {
  uint64_t adapter_lookups = 0, adapter_hits = 0;
  uint64_t prompt_tokens = 0, hit_tokens = 0;
  double load_s = 0, prefill_s = 0;
  double wait_s = 0;  // of all requests, for room

  double busy_s() const { return load_s + prefill_s; }
};

Result Replay(std::span<const TracedRequest> trace, const Machine& machine, uint32_t pages,
              const Policy& policy);

}  // namespace lorad::bench
