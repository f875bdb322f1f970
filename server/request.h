// GenerationRequest: what the front door hands to the engine, checked and tokenized. Plain data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "memory/base/clock.h"
#include "model/sampling.h"
#include "scheduler/planner.h"
#include "scheduler/priority.h"
#include "server/adapter_version.h"
#include "server/token_stream.h"

namespace lorad {

// One entry of a request's ordered list of adapters.
struct AdapterRef {
  std::shared_ptr<const AdapterVersion> version;
  float weight = 1.0f;
};

struct GenerationRequest {
  std::string request_id;       // the client's or ours; for logs only
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams sampling;
  int max_tokens = 0;  // at least 1, unless `score`
  std::vector<std::string> stop_strings;
  bool include_stop_string = false;
  bool want_text = true;
  bool score = false;  // log-probabilities of the prompt itself; nothing is generated
  int score_from =
      0;  // index of the first prompt token to score; token 0 has no prediction, is left out
  int score_top = 0;
  std::vector<AdapterRef> adapters;  // ordered; empty: the base model. At most one for now.
  int samples = 1;                   // of the same prompt, that share its pages. One for now.
  std::string tenant;                // that the call speaks for; empty: none
  double tenant_weight = 1;          // the tenant's share against others'
  int64_t tenant_max_waiting = 0;  // of the tenant's requests in the queue; 0: no limit of its own
  Priority priority = Priority::kStandard;
  std::string cache_salt;  // part of the prefix cache's scope
  TimePoint arrival;
  TimePoint deadline = TimePoint::max();
  std::shared_ptr<TokenStream> stream;
  // From arrival to the first token, as foreseen by Submit (server/admission_gate.h); below 0: it
  // was not.
  double foreseen_first_token_s = -1;
};

}  // namespace lorad
