// Sequence: one request while the engine has it: its tokens, its pages, how far it is. Engine
// thread only.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "memory/page_pool.h"
#include "memory/prefix_cache.h"
#include "model/executor.h"
#include "scheduler/tenant_ledger.h"
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
  TenantIndex tenant = 0;             // in the engine's ledger
  Priority priority;                  // its class there
  int charged = 0;                    // tokens from the first on that the tenant was charged for
  TimePoint due = TimePoint::max();   // in the engine's expiry queue
  PrefixScope scope;                  // who may share its pages
  PrefixCache::Lease lease;           // of those pages that the prefix cache has too
  PrefixCache::Found found;           // what the cache has of `tokens`, while waiting
  uint64_t found_epoch = 0;           // of the cache, when it was asked; 0: not asked
  int cached_tokens = 0;              // found at the first admission
  std::optional<uint32_t> copy_from;  // the page that its first own page begins as a copy of
  Sampler sampler;
  OutputText text;
  std::vector<AdapterUse> adapters;  // while running: leased images
  bool drawn = false;                // the executor draws its samples, they need no host
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
  bool aged = false;  // last let in because its class had waited long

  // What the steps under way will add (server/step_pipeline.h).
  struct Ahead {
    int steps = 0;     // that it is in
    int computed = 0;  // to `computed`
    int sampled = 0;   // to `tokens`
    int place = -1;    // in the newest of them
  };
  Ahead ahead;

  int output_tokens() const { return static_cast<int>(tokens.size() - request->prompt.size()); }
  int known_tokens() const { return static_cast<int>(tokens.size()); }
  int prompt_tokens() const { return static_cast<int>(request->prompt.size()); }
  // That it may generate yet, with what is under way.
  int left_tokens() const { return request->max_tokens - output_tokens() - ahead.sampled; }
  // With what is under way.
  int computed_ahead() const { return computed + ahead.computed; }
  int known_ahead() const { return known_tokens() + ahead.sampled; }
  // The most of `tokens` that need not be computed: one must be, for its logits, and of a prompt
  // that is scored all from the first that is wanted.
  int max_cached_tokens() const {
    return request->score ? std::max(0, request->score_from - 1) : known_tokens() - 1;
  }
  std::span<const TokenId> computed_tokens() const {
    return std::span(tokens).first(static_cast<size_t>(computed));
  }
  const AdapterVersion* adapter() const {
    return request->adapters.empty() ? nullptr : request->adapters[0].version.get();
  }
  StreamEnd End(absl::Status status, FinishReason reason, TimePoint now) const;
};

}  // namespace lorad
