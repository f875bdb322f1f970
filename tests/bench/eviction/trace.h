// Traces for the eviction benchmark: S-LoRA's synthetic workload
// (tests/bench/lorad_bench/workload.h) with what makes a prefix cache worth having. Each request of
// that trace becomes one of
//   single        the adapter's system prompt, then text of its own
//   conversation  such a request and further turns, each of which begins with all that was said
//   scan          text of its own only, once (a document to be read)
// Pure functions of the options.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/bench/lorad_bench/workload.h"

namespace lorad::bench {

struct TraceOptions {
  WorkloadOptions arrivals;  // lengths: of the text of its own, and of the answer
  int system_tokens = 0;     // of each adapter's system prompt
  double conversations = 0;  // share of the arrivals
  double more_turns = 0.75;  // chance of one turn more after each
  double think_s = 30;       // mean pause between an answer and the next turn
  double scans = 0;          // share of the arrivals
  Range scan_tokens{1024, 4096};
};

struct TracedRequest {
  double start_s = 0;
  int adapter = 0;
  std::vector<int32_t> text;  // prompt and answer
  int prompt_tokens = 0;
};

// In the order of their start. `step_s`: what a token of an answer takes, so that a turn comes
// after the one before it.
std::vector<TracedRequest> MakeTrace(const TraceOptions& options, double step_s);

// `second` after `first`, from the time on at which the arrivals of that end.
std::vector<TracedRequest> Shift(const TraceOptions& first, const TraceOptions& second,
                                 double step_s);

}  // namespace lorad::bench
