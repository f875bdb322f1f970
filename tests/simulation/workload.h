// Workloads for the simulator: who asks when, on which adapter, with how many tokens, and what goes
// wrong meanwhile. A workload is a list of streams of requests that are merged by time. Each is
// S-LoRA's synthetic trace (tests/bench/lorad_bench/workload.h, number for number) with more on
// top: a tenant, a priority, bursts, shared beginnings of prompts, clients that cancel.
//
// Pure functions of the options; equal options give equal requests.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/priority.h"
#include "tests/bench/lorad_bench/workload.h"

namespace lorad::sim {

inline constexpr double kNever = std::numeric_limits<double>::infinity();

struct SimRequest {
  double start_s = 0;
  double cancel_s = kNever;    // the client leaves then
  double deadline_s = kNever;  // from the start of the simulation, too
  double read_every_s = 0;     // its reader looks so often and has little room; 0: at once
  int32_t tenant = 0;
  int32_t adapter = -1;  // -1: the base model
  int32_t prompt_tokens = 1;
  int32_t shared_tokens = 0;  // of the prompt, that all requests on this adapter begin with
  int32_t output_tokens = 1;  // that the model will say
  int32_t max_tokens = 1;     // that the client allows; >= output_tokens
  Priority priority = Priority::kStandard;
};

struct StreamOptions {
  bench::WorkloadOptions arrivals;  // rate, lengths, adapters, their popularity, seed
  int first_adapter = 0;            // the stream's adapters are [first, first + arrivals.adapters)
  double base_share = 0;            // of requests without an adapter
  int tenants = 1;                  // that a request belongs to one of, at random
  int first_tenant = 0;
  Priority priority = Priority::kStandard;
  double start_s = 0;  // the stream begins then
  // Bursts: for the first `burst_s` of each `burst_every_s`, arrivals come `burst_factor` times as
  // fast as otherwise, at the same mean rate. 0: none.
  double burst_every_s = 0, burst_s = 0, burst_factor = 1;
  double shared_share = 0;  // of prompts that begin with their adapter's system prompt ...
  int shared_tokens = 0;    // ... of so many tokens, before their own
  // What clients allow beyond what will be said: max_tokens is output * (1 + slack), at least that.
  double slack = 0;
  double cancel_share = 0;       // of clients that leave before the end ...
  double cancel_within_s = 10;   // ... at a time evenly spread over so long
  double cancel_all_s = kNever;  // at this time every client leaves that has come by then
  double deadline_s = kNever;    // after the start
  double slow_share = 0;         // of clients whose reader is slow ...
  double read_every_s = 1;       // ... and looks so often
};

struct Workload {
  std::string name;
  std::string explanation;  // for people
  std::vector<StreamOptions> streams;
  std::vector<double> weights;  // by tenant, as in the tenants' configuration; empty: all 1

  int adapters() const;  // that it names, in all
  int tenants() const;
  double duration_s() const;
};

// By start. InvalidArgument naming what is wrong.
absl::StatusOr<std::vector<SimRequest>> MakeRequests(const Workload& workload);

// What the named workloads below are made from.
struct WorkloadKnobs {
  double rate = 8;  // requests a second, all streams together
  double duration_s = 120;
  int adapters = 100;
  double alpha = 1;  // 1: uniform
  double cv = 1;
  bench::Range input{}, output{};
  uint32_t seed = 42;
  double slack = 0;
  double deadline_s = kNever;
  int tenants = 4;
};

struct WorkloadName {
  const char* name;
  const char* explanation;
};
// slora, bursts, flood, hot, cancel, shared, priorities
std::vector<WorkloadName> WorkloadNames();
absl::StatusOr<Workload> MakeWorkload(std::string_view name, const WorkloadKnobs& knobs);

}  // namespace lorad::sim
