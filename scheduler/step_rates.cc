#include "scheduler/step_rates.h"

#include <algorithm>

namespace lorad {
namespace {

constexpr double kLatest = 0.1;  // weight of the latest pair; before there are ten, all are alike
// A step that took longer than so many times what was expected (the machine was elsewhere) counts
// as if it had taken that.
constexpr double kMostSurprise = 4;

}  // namespace

void StepRates::Means::Add(double new_x, double new_y) {
  ++count;
  const double weight = std::max(kLatest, 1.0 / count);
  x += weight * (new_x - x);
  y += weight * (new_y - y);
}

void StepRates::AddStep(int prefill_tokens, int decode_tokens, double seconds, TimePoint now) {
  const int rows = prefill_tokens + decode_tokens;
  if (rows == 0) return;
  if (fit_.steps() >= kFewestSteps) {
    const double expected = cost().Seconds(prefill_tokens, decode_tokens);
    if (expected > 0) seconds = std::min(seconds, kMostSurprise * expected);
  }
  fit_.Add(prefill_tokens, decode_tokens, seconds);
  pace_.Add(fit_.cost().Seconds(prefill_tokens, decode_tokens), seconds);
  recent_.Add(rows, seconds);
  if (prefill_tokens < decode_tokens) {
    ++decodes_;
  } else {
    ++prefills_;
    last_prefill_ = now;
  }
}

void StepRates::AddPrompts(int tokens, int cached_tokens) {
  // Something is always computed, so that a queue of whatever length never weighs nothing.
  if (tokens > 0) computed_.Add(tokens, std::max(1, tokens - cached_tokens));
}

void StepRates::AddOutput(int tokens, int max_tokens) {
  if (max_tokens > 0) output_.Add(max_tokens, std::clamp(tokens, 1, max_tokens));
}

void StepRates::NoteLoad(TimePoint now) {
  ++loads_;
  last_load_ = now;
}

StepCost StepRates::cost() const {
  const double pace = pace_.ratio();
  StepCost cost = fit_.cost();
  cost.base *= pace;
  cost.prompt_row *= pace;
  cost.decode_row *= pace;
  return cost;
}

std::optional<StepCost> StepRates::Fitted() const {
  if (prefills_ < kFewestSteps || decodes_ < kFewestSteps) return std::nullopt;
  return fit_.cost();
}

}  // namespace lorad
