// Feasibility: when a request would have its first token, and when it could be done, if it came or
// went on waiting now. From measured costs of steps, what goes before it, what runs, and what it
// brings; the server refuses what cannot be in time by it, before any work is spent.
//
//   steps until its turn   as many as the prompts before it fill, beside the decoding sequences, or
//                          as it takes for a place to become free, whichever is more
//   its adapter            is loaded meanwhile
//   its own prompt         in chunks, beside what decodes then
//   its output             a step a token, for those that it must make at least; while others wait,
//                          steps have prompts in them, as they had of late
//
// It is an estimate from below where something is unknown (outputs may end early, other requests
// may be cancelled): what is called infeasible should be so. Whoever decides adds a margin.
//
// Pure functions of values.
#pragma once

#include <array>
#include <cstdint>

#include "scheduler/backlog.h"
#include "scheduler/priority.h"
#include "scheduler/step_rates.h"

namespace lorad {

// What runs and what it costs, at one moment.
struct ServiceState {
  StepCost cost;
  double recent_step = 0;  // seconds that a step took of late, whatever was in it
  bool trusted = false;    // the cost was measured often and lately enough to refuse anybody by it
  int max_step_tokens = 512, max_chunk_tokens = 256, max_sequences = 256;
  int page_tokens = 16;

  int running = 0;
  int decoding = 0;                                      // of running
  std::array<double, kPriorities> prompt_tokens_left{};  // of the others, by class
  double output_tokens_left = 0;                         // of a running sequence, on average
  double pages_per_sequence = 1;                         // of the running ones, on average
  double available_pages = 0;                            // free or to be had
  double computed_share = 1;                             // of the tokens of a prompt that waits
  double seconds_per_adapter_page = 0;                   // of a load
};

struct Work {
  Priority priority = Priority::kStandard;
  int prompt_tokens = 0;
  int least_output_tokens = 1;  // that it will make if nobody stops it; 0: it is only scored
  uint32_t load_pages = 0;      // of its adapter; 0: there is nothing to load
};

// Seconds from now.
struct Times {
  double first_token = 0;  // of a request that is scored, its end
  double completion = 0;   // its least output is made
};
struct Forecast : Times {
  double turn = 0;  // its prompt is begun
  Times alone;      // on a server that has nothing else to do
};

Forecast Predict(const ServiceState& state, const Queued& ahead, const Work& work);

}  // namespace lorad
