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
  const bool prefill = prefill_tokens >= decode_tokens;
  Means& means = prefill ? prefill_ : decode_;
  if (means.count >= kFewestSteps) {
    const double expected = cost().Seconds(rows);
    if (expected > 0) seconds = std::min(seconds, kMostSurprise * expected);
  }
  means.Add(rows, seconds);
  recent_.Add(rows, seconds);
  if (prefill) last_prefill_ = now;
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
  const Means& more = prefill_.count > 0 ? prefill_ : decode_;
  if (more.count == 0) return {};
  const double whole = more.y / more.x;  // if the base were nothing
  if (decode_.count == 0 || decode_.x >= more.x) return {.base = 0, .row = whole};
  const double row = std::clamp((more.y - decode_.y) / (more.x - decode_.x), 0.0, whole);
  return {.base = more.y - row * more.x, .row = row};
}

}  // namespace lorad
