// Sequence: one request while the engine has it: its tokens, its pages, how far it is. Engine
// thread only.
#pragma once

#include <memory>
#include <vector>

#include "memory/page_pool.h"
#include "model/executor.h"
#include "server/output_text.h"
#include "server/request.h"

namespace lorad {

struct Sequence {
  Sequence(RequestId id_in, std::unique_ptr<GenerationRequest> request_in, PagePool* pool,
           const Tokenizer* tokenizer, int vocab_size);

  const RequestId id;
  const std::unique_ptr<GenerationRequest> request;
  std::vector<TokenId> tokens;  // prompt and output
  int computed = 0;             // tokens whose keys and values are in the pages
  PageList pages;
  Sampler sampler;
  OutputText text;
  std::vector<AdapterUse> adapters;  // while running: leased images
  std::vector<TokenId>
      score_targets;  // [prompt]: the next token where it is wanted, else -1; scoring only
  std::vector<SampledToken> scores;  // collected so far; scoring only
  bool running = false;
  bool finished = false;
  bool admitted_before = false;
  TimePoint first_admission, first_token, last_token;
  TimePoint paused_since = TimePoint::max();
  Duration adapter_load{};  // waited for the adapter before the first admission
  int preemptions = 0;

  int output_tokens() const { return static_cast<int>(tokens.size() - request->prompt.size()); }
  int known_tokens() const { return static_cast<int>(tokens.size()); }
  const AdapterVersion* adapter() const {
    return request->adapters.empty() ? nullptr : request->adapters[0].version.get();
  }
  StreamEnd End(absl::Status status, FinishReason reason, TimePoint now) const;
};

}  // namespace lorad
