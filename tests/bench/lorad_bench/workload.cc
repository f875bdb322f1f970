#include "tests/bench/lorad_bench/workload.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/bench/lorad_bench/numpy_random.h"

namespace lorad::bench {
namespace {

absl::Status ValidateRange(const char* name, const Range& range) {
  if (range.low >= 1 && range.low < range.high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("--{}: [{}, {}) is not a range of lengths >= 1", name, range.low, range.high));
}

// Adapters and lengths of `count` requests, in the order of draws that the trace has.
std::vector<PlannedRequest> DrawRequests(const WorkloadOptions& o, int count, NumpyRandom* random) {
  std::vector<PlannedRequest> requests(static_cast<size_t>(count));
  for (PlannedRequest& r : requests) {
    // Power can round up to 1.
    r.adapter = std::min(static_cast<int>(random->Power(o.alpha) * o.adapters), o.adapters - 1);
  }
  for (PlannedRequest& r : requests) {
    r.input_tokens = static_cast<int>(random->Integer(o.input.low, o.input.high));
  }
  for (PlannedRequest& r : requests) {
    r.output_tokens = static_cast<int>(random->Integer(o.output.low, o.output.high));
  }
  return requests;
}

}  // namespace

absl::Status Validate(const WorkloadOptions& options) {
  const auto positive = [](const char* name, double value) {
    return value > 0
               ? absl::OkStatus()
               : absl::InvalidArgumentError(fmt::format("--{}: {} is not positive", name, value));
  };
  for (const absl::Status& status :
       {ValidateRange("input", options.input), ValidateRange("output", options.output),
        positive("alpha", options.alpha), positive("rate", options.rate),
        positive("cv", options.cv), positive("duration", options.duration_s),
        positive("adapters", options.adapters)}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

std::vector<PlannedRequest> OpenLoopTrace(const WorkloadOptions& options) {
  NumpyRandom random(options.seed);
  const int count = static_cast<int>(options.rate * options.duration_s);
  std::vector<PlannedRequest> requests = DrawRequests(options, count, &random);
  const double cv2 = options.cv * options.cv;
  double now = 0;
  for (PlannedRequest& request : requests) {
    now += random.Gamma(1 / cv2, cv2 / options.rate);
    request.start_s = now;
  }
  return requests;
}

std::vector<PlannedRequest> ClosedLoopRequests(const WorkloadOptions& options, int count,
                                               Popularity popularity) {
  NumpyRandom random(options.seed);
  std::vector<PlannedRequest> requests = DrawRequests(options, count, &random);
  if (popularity == Popularity::kRoundRobin) {
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].adapter = static_cast<int>(i % static_cast<size_t>(options.adapters));
    }
  }
  return requests;
}

}  // namespace lorad::bench
