// RunLoad: sends a workload to a server and measures what comes back. One thread drives; the client
// library's threads only count. Times are the client's own, steady clock.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "tests/bench/lorad_bench/workload.h"

namespace lorad::bench {

struct LoadOptions {
  WorkloadOptions workload{};           // `adapters` is taken from the list below
  std::vector<std::string> adapters{};  // names; "" is the base model
  // 0: open loop, requests start at the trace's times whatever the server does; the run ends when
  // all have ended. Otherwise so many clients, each sending one request after the other until
  // workload.duration_s has passed.
  int clients = 0;
  Popularity popularity = Popularity::kPower;  // closed loop only
  double warmup_s = 0;   // closed loop: not measured, at the start of the duration
  double grace_s = 120;  // open loop: wait so long after the last start
  int prompt_token = 0;  // prompts repeat this token, as S-LoRA's do
  int random_prompt_vocab =
      0;  // > 0: prompts are random ids below this instead (no two begin alike)
  v1::Priority priority = v1::PRIORITY_UNSPECIFIED;  // of all requests
  double deadline_s = 0;                             // of each request; 0: none
};

struct Percentiles {
  size_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;
};
// Nearest-rank percentiles. Sorts `samples`.
Percentiles Summarize(std::vector<float>* samples);

struct LoadResult {
  double seconds = 0;    // of the measured window; open loop: from the first start to the last end
  int64_t started = 0;   // requests of the whole run
  int64_t finished = 0;  // in the window
  int64_t input_tokens = 0;               // of prompts whose first token came in the window
  int64_t output_tokens = 0;              // that came in the window
  int64_t cached_tokens = 0;              // of finished requests' prompts
  std::map<std::string, int64_t> errors;  // by status code name
  std::string first_error;
  Percentiles ttft_s, token_gap_s, request_s;
  double longest_pause_s =
      0;  // between two messages of one stream, a message of many tokens counted as one
  double attainment = 0;      // share of ended requests with a first token in less than 6 s
  double server_queue_s = 0;  // mean, as the server reports it
  double server_load_s = 0;   // mean wait for an adapter's load
  double client_cores = 0;    // CPU time of this process over `seconds`

  double requests_per_s() const {
    return seconds > 0 ? static_cast<double>(finished) / seconds : 0;
  }
  double output_tokens_per_s() const {
    return seconds > 0 ? static_cast<double>(output_tokens) / seconds : 0;
  }
  double input_tokens_per_s() const {
    return seconds > 0 ? static_cast<double>(input_tokens) / seconds : 0;
  }
};

inline constexpr double kAttainmentTtftS = 6;

// Errors of single requests are counted, not returned. Unavailable: the first requests all failed.
absl::StatusOr<LoadResult> RunLoad(Client* client, const LoadOptions& options);

}  // namespace lorad::bench
