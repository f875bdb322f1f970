// Sampling: from a row of logits to a token. SamplingParams is the request's wish (checked once, at
// the door); Sampler is one request's state (what penalties need to remember). Deterministic: a
// token depends on the logits, the parameters and the token's index alone (counter-based generator
// keyed by the seed), so it is the same after a preemption or in another batch.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace lorad {

using TokenId = int32_t;

struct SamplingParams {
  float temperature = 1.0f;         // 0: greedy; <= 100
  int top_k = 0;                    // 0: off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // (0, 100]; prompt and output tokens, as in transformers
  float presence_penalty = 0.0f;    // [-2, 2]; output tokens
  float frequency_penalty = 0.0f;   // [-2, 2]; output tokens
  std::vector<std::pair<TokenId, float>> logit_bias;  // added to the logits, [-100, 100]
  uint64_t seed = 0;
  int min_tokens = 0;  // stop tokens are masked until so many tokens are made
  std::vector<TokenId>
      stop_tokens;    // all token ids that end the output (end-of-sequence included unless ignored)
  int logprobs = -1;  // -1: none; n: the token's own log-probability and the n likeliest
};

// InvalidArgument with the field's name. Bounds: logprobs <= 20, logit_bias <= 1024 entries, ids
// within the vocabulary.
absl::Status ValidateSamplingParams(const SamplingParams& params, int vocab_size);

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
};

struct SampledToken {
  TokenId token = 0;
  float logprob = 0;  // of the token under the model's distribution (softmax of the raw logits); 0
                      // if not asked for
  std::vector<TokenLogprob> top;  // likeliest first; empty unless asked for
};

// log-softmax of one row at `token` and its n likeliest tokens (ties: the lower id first).
SampledToken ScoreToken(std::span<const float> logits, TokenId token, int top_n);

// State of one request. Not thread-safe; different samplers may run at the same time.
class Sampler {
 public:
  // `prompt` is read now (repetition penalty), not kept.  REQUIRES: params are valid.
  Sampler(SamplingParams params, std::span<const TokenId> prompt, int vocab_size);

  // The token at output index `index` (0 is the first). Does not change the state.
  SampledToken Sample(std::span<const float> logits, int index) const;
  // Tells the sampler that `token` was appended to the output.
  void Accept(TokenId token);

  const SamplingParams& params() const { return params_; }

 private:
  // Applies bias, the mask of stop tokens and the penalties.
  void Adjust(bool masks_stop, std::span<float> logits) const;

  SamplingParams params_;
  int vocab_size_;
  std::unordered_map<TokenId, int> output_counts_;  // only if a penalty is set
  std::vector<TokenId> prompt_tokens_;              // distinct, only if a repetition penalty is set
};

}  // namespace lorad
