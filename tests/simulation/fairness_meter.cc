#include "tests/simulation/fairness_meter.h"

#include <algorithm>
#include <utility>

namespace lorad::sim {

FairnessMeter::FairnessMeter(size_t tenants, std::vector<double> weights)
    : tenants_(tenants <= kMostTenants ? tenants : 0), weights_(std::move(weights)) {
  weights_.resize(tenants_, 1);
  served_.resize(tenants_, 0);
  waiting_.resize(tenants_, 0);
  pairs_.resize(tenants_ * tenants_);
}

void FairnessMeter::AddWaiting(int tenant, int difference) {
  const auto t = static_cast<size_t>(tenant);
  if (t >= tenants_) return;
  waiting_[t] += difference;
  Look(t);
}

void FairnessMeter::AddService(int tenant, double prompt_tokens, double output_tokens) {
  const auto t = static_cast<size_t>(tenant);
  if (t >= tenants_) return;
  served_[t] += (prompt_tokens + kOutputPrice * output_tokens) / weights_[t];
  Look(t);
}

void FairnessMeter::Look(size_t tenant) {
  for (size_t other = 0; other < tenants_; ++other) {
    if (other == tenant) continue;
    const auto [a, b] = std::minmax(tenant, other);
    Pair& pair = PairOf(a, b);
    const double difference = served_[a] - served_[b];
    if (waiting_[a] == 0 || waiting_[b] == 0) {
      pair.both = false;
      continue;
    }
    if (!std::exchange(pair.both, true)) pair.least = pair.most = difference;
    pair.least = std::min(pair.least, difference);
    pair.most = std::max(pair.most, difference);
    worst_ = std::max(worst_, pair.most - pair.least);
  }
}

}  // namespace lorad::sim
