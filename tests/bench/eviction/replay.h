// Replays a trace against the real pool in virtual time. What is simulated is the rest: a request
// starts when the pool has room for it (in order of arrival), takes the time of its adapter's load,
// of its prompt's uncached tokens and of its answer, and keeps its pages until then. Loads,
// prefills and steps of different requests do not slow each other down.
#pragma once

#include <cstdint>
#include <span>

#include "tests/bench/eviction/trace.h"

namespace lorad::bench {

// A model on a machine. Pages hold kPageTokens tokens.
struct Machine {
  const char* name;
  double token_s;         // of computing a prompt's token
  double step_s;          // of a token of an answer
  double adapter_page_s;  // of loading a page of an adapter
  double adapter_pages_per_rank;
};
inline constexpr int kPageTokens = 16;
inline constexpr int kRanks[] = {8, 16, 32, 64};  // adapter i has rank kRanks[i mod 4]

// Llama-3-8B in bf16 on an H100. 0.64 us a token and layer at 70 % of its peak; pages of 2 MiB over
// PCIe 5 at 55 GB/s; adapters on all seven projections, 84 MB at rank 16.
inline constexpr Machine kH100{.name = "H100",
                               .token_s = 32 * 0.64e-6,
                               .step_s = 0.025,
                               .adapter_page_s = 2.097e6 / 55e9,
                               .adapter_pages_per_rank = 2.5};
// The model of 100 M parameters and the 2 cores of docs/benchmarks/2026-11-24-first-run.md: 303
// GFLOP/s, pages of 192 KiB. An adapter (5.2 MB at rank 16) is assumed to be read, checked and
// packed at 0.5 GB/s.
inline constexpr Machine kCpu{.name = "CPU",
                              .token_s = 0.2e9 / 303e9,
                              .step_s = 0.025,
                              .adapter_page_s = 196608 / 0.5e9,
                              .adapter_pages_per_rank = 5.21e6 / 16 / 196608};

struct Policy {
  const char* name;
  bool lru = false;           // least recently used first, instead of lorad's scores
  double adapter_share = 0;   // of the pool, fixed; 0: one pool for both
  bool keep_adapters = true;  // false: an adapter goes when nobody runs on it
  bool keep_prefixes = true;
};

struct Result {
  uint64_t requests = 0, adapter_hits = 0;
  uint64_t prompt_tokens = 0, hit_tokens = 0;
  double load_s = 0, prefill_s = 0;
  double wait_s = 0;  // of all requests together, for room

  double busy_s() const { return load_s + prefill_s; }
};

// REQUIRES: each part of the pool can hold any one request.
Result Replay(std::span<const TracedRequest> trace, const Machine& machine, uint32_t pages,
              const Policy& policy);

}  // namespace lorad::bench
