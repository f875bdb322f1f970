// Measurements: what became of each simulated request and what each tenant was served, as it
// happens. report.h makes figures of it.
//
// Thread: the simulation's only.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/simulation/virtual_clock.h"
#include "tests/simulation/workload.h"

namespace lorad::sim {

enum class Outcome : uint8_t {
  kPending,    // it has not ended
  kFinished,   // all its tokens came
  kRefused,    // RESOURCE_EXHAUSTED before anything was computed, or its reader is too slow
  kCancelled,  // its client left
  kDeadline,
  kFailed,  // anything else: its adapter could not be loaded, ...
};
inline constexpr int kOutcomes = 6;

struct RequestRecord {
  Outcome outcome = Outcome::kPending;
  int16_t server = -1;
  int32_t output_tokens = 0;
  int32_t cached_tokens = 0;  // of the prompt, at the first admission
  int32_t preemptions = 0;
  float queue_s = 0;
  float ttft_s = -1;     // < 0: there was no token
  float gap_mean_s = 0;  // between tokens
  float gap_max_s = 0;
  float total_s = 0;
};

// What a client is promised. A request keeps it if it finishes, its first token comes in time, and
// so do the others on average.
struct Objective {
  double ttft_s = 6;  // S-LoRA's
  double gap_s = kNever;
};

// Counts by size, in steps of 2 %: percentiles of any number of samples in little memory.
class LogHistogram {
 public:
  void Add(double seconds);
  uint64_t count() const { return count_; }
  double Percentile(double share) const;  // 0 if there is nothing
  double max() const { return max_; }

 private:
  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  double max_ = 0;
};

class Measurements {
 public:
  Measurements(size_t requests, int tenants, double window_s);

  RequestRecord& record(size_t request) { return records_[request]; }
  const std::vector<RequestRecord>& records() const { return records_; }
  // Tokens that a tenant was served: of prompts when they are admitted, of outputs as they come.
  void AddService(int tenant, TimePoint when, int prompt_tokens, int output_tokens);
  void AddGap(double seconds) { gaps_.Add(seconds); }

  const LogHistogram& gaps() const { return gaps_; }
  double window_s() const { return window_s_; }
  // Served tokens of both kinds: [window][tenant].
  const std::vector<std::vector<int64_t>>& service() const { return service_; }
  int64_t output_tokens_before(double seconds) const;  // whole windows
  int64_t output_tokens() const { return output_tokens_; }
  int64_t prompt_tokens() const { return prompt_tokens_; }

 private:
  std::vector<RequestRecord> records_;
  const int tenants_;
  const double window_s_;
  std::vector<std::vector<int64_t>> service_;
  std::vector<int64_t> output_by_window_;
  int64_t output_tokens_ = 0, prompt_tokens_ = 0;
  LogHistogram gaps_;
};

}  // namespace lorad::sim
