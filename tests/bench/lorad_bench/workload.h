// Workloads: which adapter, how many tokens, when. S-LoRA's synthetic trace (its
// benchmarks/trace.py), draw for draw:
//   adapter   floor(n * power(alpha)): density alpha x^(alpha-1), so alpha = 1 is UNIFORM over the
//   adapters and a smaller alpha
//             favours adapter 0
//   lengths   uniform integers in [low, high), input and output apart
//   gaps      Gamma with mean 1/rate and coefficient of variation cv
// in this order, each for all requests, from one generator with the given seed. Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace lorad::bench {

struct Range {
  int low = 8;
  int high = 512;  // exclusive
};

struct WorkloadOptions {
  int adapters = 1;
  double alpha = 1;
  double rate = 2;  // requests a second
  double cv = 1;
  double duration_s = 60;
  Range input{}, output{};
  uint32_t seed = 42;
};

struct PlannedRequest {
  double start_s = 0;
  int adapter = 0;  // [0, adapters)
  int input_tokens = 0;
  int output_tokens = 0;
};

// InvalidArgument naming the option.
absl::Status Validate(const WorkloadOptions& options);

// floor(rate * duration) requests in the order of their start.  REQUIRES: Validate(options).
std::vector<PlannedRequest> OpenLoopTrace(const WorkloadOptions& options);

enum class Popularity {
  kPower,       // as above
  kRoundRobin,  // request i to adapter i mod n: every adapter equally often, and all of them at any
                // time
};

// `count` requests of the same laws without start times, for clients that send one after the other.
std::vector<PlannedRequest> ClosedLoopRequests(const WorkloadOptions& options, int count,
                                               Popularity popularity);

}  // namespace lorad::bench
