// The order of a sampled row, which is vLLM's:
//   logit bias, stop tokens masked before min_tokens, repetition penalty, frequency and presence
//   penalty, temperature, min-p, top-k, top-p, draw.
// (transformers applies min-p last: the same set of tokens unless top-p is on too, which then
// normalises over more tokens.)
//
// The filters only find a *cut*: the last token, in the order "higher logit first, then lower id",
// that may be drawn. The draw then walks the row by id up to the cut, so it depends on no selection
// algorithm's leftover order.
//
// NaN logits count as -infinity. A row without any finite or infinite maximum gives token 0.
#include "model/sampling.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "kernels/sample_stream.h"
#include "kernels/sample_weight.h"
#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"

namespace lorad {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr int kMaxLogprobs = 20;
constexpr size_t kMaxLogitBias = 1024;

struct Candidate {
  float logit;
  TokenId id;
};

bool Before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Reused by all samplers that run on a thread, so that a token costs no allocation.
struct Scratch {
  std::vector<float> logits;   // [vocab] after bias and penalties
  std::vector<float> weights;  // [vocab] exp((logit - max) / temperature)
  std::vector<Candidate> candidates;
};

Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

// Rows are read in blocks: short enough for the stack, long enough for the compiler to vectorise
// the loop over one.
constexpr size_t kBlock = 256;

// The lowest id of the largest logit. One pass: a block is searched only if its maximum is a new
// one. Every comparison with NaN is false, so NaN never wins.
Candidate Likeliest(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  Candidate best{kNever, 0};
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const std::span<const float> block =
        logits.subspan(begin).first(std::min(kBlock, logits.size() - begin));
    std::array<float, kLanes> lanes;
    lanes.fill(kNever);
    size_t i = 0;
    for (; i + kLanes <= block.size(); i += kLanes) {
      for (size_t j = 0; j < kLanes; ++j)
        lanes[j] = block[i + j] > lanes[j] ? block[i + j] : lanes[j];
    }
    for (; i < block.size(); ++i) lanes[0] = block[i] > lanes[0] ? block[i] : lanes[0];
    const float max = *std::max_element(lanes.begin(), lanes.end());
    if (!(max > best.logit)) continue;
    const auto at = std::find(block.begin(), block.end(), max) - block.begin();
    best = {max, static_cast<TokenId>(begin + static_cast<size_t>(at))};
  }
  return best;
}

// Sum of `count` <= kBlock values, in an order that vectorises.
double BlockSum(const float* values, size_t count) {
  std::array<float, 16> lanes{};
  size_t i = 0;
  for (; i + lanes.size() <= count; i += lanes.size()) {
    for (size_t j = 0; j < lanes.size(); ++j) lanes[j] += values[i + j];
  }
  double sum = 0;
  for (; i < count; ++i) sum += values[i];
  for (float lane : lanes) sum += lane;
  return sum;
}

// weights[i] = exp((logits[i] - max) * scale) unless weights is null; returns their sum.
double Weigh(std::span<const float> logits, float max, float scale, float* weights) {
  double sum = 0;
  std::array<float, kBlock> values;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const float* const from = logits.data() + begin;
    float* const to = weights == nullptr ? values.data() : weights + begin;
    const size_t count = std::min(kBlock, logits.size() - begin);
    for (size_t i = 0; i < count; ++i) to[i] = kernels::ExpNonPositive((from[i] - max) * scale);
    sum += BlockSum(to, count);
  }
  return sum;
}

// The k-th candidate of the row among those with logit >= floor; the last of them if there are
// fewer. Keeps a buffer that is cut back to the best k whenever it fills, so most of the row costs
// one comparison.
Candidate TopKCut(std::span<const float> logits, size_t k, float floor,
                  std::vector<Candidate>* best) {
  const size_t capacity = std::max<size_t>(2 * k, 256);
  best->clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] >= floor)) continue;
    best->push_back({logits[i], static_cast<TokenId>(i)});
    if (best->size() < capacity) continue;
    std::nth_element(best->begin(), best->begin() + (k - 1), best->end(), Before);
    best->resize(k);
    // Later ties lose by id: from here on only a greater logit gets in.
    floor = std::nextafter((*best)[k - 1].logit, std::numeric_limits<float>::infinity());
  }
  if (best->size() > k) {
    std::nth_element(best->begin(), best->begin() + (k - 1), best->end(), Before);
    best->resize(k);
  }
  return *std::max_element(best->begin(), best->end(), Before);
}

// The last candidate of the smallest leading set whose weight reaches `target`: halves the range
// that holds the cut, linear in total. Reorders `all`. REQUIRES: all is not empty.
Candidate MassCut(std::vector<Candidate>* all, const std::vector<float>& weights, double target) {
  auto low = all->begin();
  auto high = all->end();
  double before = 0;
  while (high - low > 16) {
    const auto middle = low + (high - low) / 2;
    std::nth_element(low, middle, high, Before);
    double mass = 0;
    for (auto it = low; it != middle; ++it) mass += weights[it->id];
    if (before + mass >= target) {
      high = middle;
    } else {
      before += mass;
      low = middle;
    }
  }
  std::sort(low, high, Before);
  for (; low != high - 1; ++low) {
    before += weights[low->id];
    if (before >= target) break;
  }
  return *low;
}

// The last token that min-p, top-k and top-p leave. `weights` are those of the row, `sum` their
// sum.
Candidate FindCut(const SamplingParams& params, std::span<const float> logits, float max,
                  double sum, Scratch* scratch) {
  const TokenId last = static_cast<TokenId>(logits.size()) - 1;
  Candidate cut{kNever, last};
  if (params.min_p > 0) {
    cut = {kernels::LogitOfShare(max, params.temperature, params.min_p), last};
  }
  const bool limits_count = params.top_k > 0 && static_cast<size_t>(params.top_k) < logits.size();
  if (limits_count) {
    cut = TopKCut(logits, static_cast<size_t>(params.top_k), cut.logit, &scratch->candidates);
  }
  if (params.top_p >= 1) return cut;

  if (limits_count) {
    sum = 0;
    for (const Candidate& c : scratch->candidates) sum += scratch->weights[c.id];
    return MassCut(&scratch->candidates, scratch->weights, params.top_p * sum);
  }
  if (params.min_p > 0) {
    sum = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] >= cut.logit) sum += scratch->weights[i];
    }
  }
  // Tokens lighter than this hold less than 1 - top_p together: the cut is among the others,
  // usually a handful.
  const double light = (1.0 - params.top_p) * sum / static_cast<double>(logits.size());
  scratch->candidates.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (scratch->weights[i] >= light && logits[i] >= cut.logit) {
      scratch->candidates.push_back({logits[i], static_cast<TokenId>(i)});
    }
  }
  return MassCut(&scratch->candidates, scratch->weights, params.top_p * sum);
}

// The token at which the weights, summed by id, pass `uniform` of their total; `likeliest` if they
// are all 0.
TokenId Pick(std::span<const float> weights, double uniform, TokenId likeliest) {
  double total = 0;
  for (size_t begin = 0; begin < weights.size(); begin += kBlock) {
    total += BlockSum(&weights[begin], std::min(kBlock, weights.size() - begin));
  }
  const double target = uniform * total;
  double before = 0;
  TokenId token = likeliest;
  for (size_t begin = 0; begin < weights.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, weights.size());
    const double sum = BlockSum(&weights[begin], end - begin);
    if (before + sum <= target) {
      before += sum;
      continue;
    }
    for (size_t i = begin; i < end; ++i) {
      if (weights[i] == 0) continue;
      token = static_cast<TokenId>(i);  // the block's last one if rounding hides the place
      before += weights[i];
      if (before > target) break;
    }
    break;
  }
  return token;
}

TokenId Draw(const SamplingParams& params, std::span<const float> logits, int index,
             Scratch* scratch) {
  const Candidate best = Likeliest(logits);
  if (params.temperature == 0 || !std::isfinite(best.logit)) return best.id;
  // A temperature too small for its inverse is greedy.
  const float scale = 1.0f / params.temperature;
  if (!std::isfinite(scale)) return best.id;

  std::vector<float>& weights = scratch->weights;
  weights.resize(logits.size());
  const double sum = Weigh(logits, best.logit, scale, weights.data());
  if (params.min_p > 0 || params.top_k > 0 || params.top_p < 1) {
    const Candidate cut = FindCut(params, logits, best.logit, sum, scratch);
    for (size_t i = 0; i < logits.size(); ++i) {
      if (Before(cut, {logits[i], static_cast<TokenId>(i)})) weights[i] = 0;
    }
  }
  return Pick(weights, kernels::UniformAt(params.seed, static_cast<uint64_t>(index)), best.id);
}

absl::Status CheckRange(std::string_view field, float value, float low, float high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidField(field, fmt::format("{} is not in [{}, {}]", value, low, high));
}

absl::Status CheckToken(std::string_view field, TokenId token, int vocab_size) {
  if (token >= 0 && token < vocab_size) return absl::OkStatus();
  return InvalidField(field,
                      fmt::format("token {} is not in the vocabulary of {}", token, vocab_size));
}

}  // namespace

absl::Status ValidateSamplingParams(const SamplingParams& params, int vocab_size) {
  LORAD_RETURN_IF_ERROR(CheckRange("sampling.temperature", params.temperature, 0.0f, 100.0f));
  if (params.top_k < 0) return InvalidField("sampling.top_k", "is negative");
  LORAD_RETURN_IF_ERROR(CheckRange("sampling.top_p", params.top_p, 0.0f, 1.0f));
  if (params.top_p == 0) return InvalidField("sampling.top_p", "must be greater than 0");
  LORAD_RETURN_IF_ERROR(CheckRange("sampling.min_p", params.min_p, 0.0f, 1.0f));
  LORAD_RETURN_IF_ERROR(
      CheckRange("sampling.repetition_penalty", params.repetition_penalty, 0.0f, 100.0f));
  if (params.repetition_penalty == 0) {
    return InvalidField("sampling.repetition_penalty", "must be greater than 0");
  }
  LORAD_RETURN_IF_ERROR(
      CheckRange("sampling.presence_penalty", params.presence_penalty, -2.0f, 2.0f));
  LORAD_RETURN_IF_ERROR(
      CheckRange("sampling.frequency_penalty", params.frequency_penalty, -2.0f, 2.0f));
  if (params.logit_bias.size() > kMaxLogitBias) {
    return InvalidField("sampling.logit_bias",
                        fmt::format("has {} entries, at most {} are allowed",
                                    params.logit_bias.size(), kMaxLogitBias));
  }
  for (const auto& [token, bias] : params.logit_bias) {
    LORAD_RETURN_IF_ERROR(CheckToken("sampling.logit_bias", token, vocab_size));
    LORAD_RETURN_IF_ERROR(CheckRange("sampling.logit_bias", bias, -100.0f, 100.0f));
  }
  if (params.min_tokens < 0) return InvalidField("sampling.min_tokens", "is negative");
  for (TokenId token : params.stop_tokens) {
    LORAD_RETURN_IF_ERROR(CheckToken("sampling.stop_tokens", token, vocab_size));
  }
  if (params.logprobs < -1 || params.logprobs > kMaxLogprobs) {
    return InvalidField("sampling.logprobs",
                        fmt::format("{} is not in [-1, {}]", params.logprobs, kMaxLogprobs));
  }
  return absl::OkStatus();
}

SampledToken ScoreToken(std::span<const float> logits, TokenId token, int top_n) {
  LORAD_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size());
  SampledToken result;
  result.token = token;
  const float max = Likeliest(logits).logit;
  // An infinite maximum takes all the mass; nothing at all has none.
  const float log_sum =
      std::isfinite(max) ? static_cast<float>(std::log(Weigh(logits, max, 1.0f, nullptr))) : 0.0f;
  auto logprob = [&](float logit) {
    if (std::isnan(logit)) return kNever;
    if (!std::isfinite(max)) return logit == max && max > 0 ? 0.0f : kNever;
    return (logit - max) - log_sum;
  };
  result.logprob = logprob(logits[static_cast<size_t>(token)]);
  if (top_n <= 0) return result;

  const size_t n = std::min(static_cast<size_t>(top_n), logits.size());
  std::vector<Candidate>& best = ThreadScratch().candidates;
  best.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    // Later ties lose by id. NaN gets in only while there is room, at the end.
    if (best.size() == n && !(logits[i] > best.back().logit)) continue;
    const Candidate candidate{std::isnan(logits[i]) ? kNever : logits[i], static_cast<TokenId>(i)};
    if (best.size() == n) best.pop_back();
    best.insert(std::upper_bound(best.begin(), best.end(), candidate, Before), candidate);
  }
  result.top.reserve(n);
  for (const Candidate& c : best) result.top.push_back({c.id, logprob(c.logit)});
  return result;
}

Sampler::Sampler(SamplingParams params, std::span<const TokenId> prompt, int vocab_size)
    : params_(std::move(params)), vocab_size_(vocab_size) {
  if (params_.repetition_penalty == 1.0f) return;
  prompt_tokens_.assign(prompt.begin(), prompt.end());
  std::sort(prompt_tokens_.begin(), prompt_tokens_.end());
  prompt_tokens_.erase(std::unique(prompt_tokens_.begin(), prompt_tokens_.end()),
                       prompt_tokens_.end());
}

SampledToken Sampler::Sample(std::span<const float> logits, int index) const {
  LORAD_CHECK(static_cast<int>(logits.size()) == vocab_size_);
  Scratch& scratch = ThreadScratch();
  const bool masks_stop = index < params_.min_tokens && !params_.stop_tokens.empty();
  const bool penalises_output = params_.presence_penalty != 0 || params_.frequency_penalty != 0;
  const bool changes_logits = masks_stop || penalises_output || !params_.logit_bias.empty() ||
                              params_.repetition_penalty != 1.0f;
  std::span<const float> row = logits;
  if (changes_logits) {
    scratch.logits.assign(logits.begin(), logits.end());
    Adjust(masks_stop, scratch.logits);
    row = scratch.logits;
  }
  const TokenId token = Draw(params_, row, index, &scratch);
  if (params_.logprobs < 0) {
    SampledToken result;
    result.token = token;
    return result;
  }
  return ScoreToken(logits, token, params_.logprobs);
}

void Sampler::Adjust(bool masks_stop, std::span<float> logits) const {
  for (const auto& [token, bias] : params_.logit_bias) logits[static_cast<size_t>(token)] += bias;
  if (masks_stop) {
    for (TokenId token : params_.stop_tokens) logits[static_cast<size_t>(token)] = kNever;
  }
  if (params_.repetition_penalty != 1.0f) {
    auto penalise = [&](TokenId token) {
      float& logit = logits[static_cast<size_t>(token)];
      logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    };
    for (TokenId token : prompt_tokens_) penalise(token);
    for (const auto& [token, count] : output_counts_) {
      if (!std::binary_search(prompt_tokens_.begin(), prompt_tokens_.end(), token)) penalise(token);
    }
  }
  for (const auto& [token, count] : output_counts_) {
    logits[static_cast<size_t>(token)] -=
        params_.frequency_penalty * static_cast<float>(count) + params_.presence_penalty;
  }
}

void Sampler::Accept(TokenId token) {
  LORAD_CHECK(token >= 0 && token < vocab_size_);
  const bool penalises = params_.presence_penalty != 0 || params_.frequency_penalty != 0 ||
                         params_.repetition_penalty != 1.0f;
  if (penalises) ++output_counts_[token];
}

}  // namespace lorad
