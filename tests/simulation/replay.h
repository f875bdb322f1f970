// Replay: a recording of a real server's arrivals (server/arrival_record.h) as a workload, and as
// the result that it was, to be compared with what the simulator makes of it.
//
// A recording has no texts. What the prefix cache had of a prompt is taken for the beginning that
// all prompts on its adapter share. Of a request that did not finish it is not known how long it
// would have been: it is taken to use the same share of its max_tokens as the finished ones on its
// adapter, on average. A client that left leaves again after the same time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/simulation/simulation.h"

namespace lorad::sim {

struct Recording {
  std::vector<SimRequest> requests;     // by start, the first at 0
  std::vector<uint64_t> adapter_bytes;  // of images, by adapter
  std::vector<double> weights;          // by tenant
  SimulationResult as_recorded;         // of these requests; nothing of steps and loads
  size_t unreadable = 0;                // lines
};

// `paths`: files of one server or of several, in any order. `times`: requests come so much faster.
// InvalidArgument or NotFound naming the file.
absl::StatusOr<Recording> ReadRecording(const std::vector<std::string>& paths, double times = 1);

}  // namespace lorad::sim
