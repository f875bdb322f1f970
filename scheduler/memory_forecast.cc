#include "scheduler/memory_forecast.h"

#include <algorithm>
#include <limits>

namespace lorad {

// In step t from now a sequence of n known tokens has ceil((n + t - 1) / T) pages, or
// floor((n - 2 + T + t) / T). With n - 2 + T = a T + b and t = q T + s that is a + q, and one more
// if b >= T - s. So sums of a and counts by b give the sum at any t.
class MemoryForecast::Alive {
 public:
  explicit Alive(int page_tokens)
      : t_(page_tokens), counts_(static_cast<size_t>(page_tokens) + 1) {}

  void Add(const Demand& d) {
    const int64_t n = int64_t{d.tokens} - 2 + t_;
    whole_ += n / t_ - d.held;
    ++count_;
    returns_ += d.returns;
    for (auto i = static_cast<size_t>(n % t_) + 1; i < counts_.size(); i += i & (~i + 1)) {
      ++counts_[i];
    }
  }
  // Pages that they take in step t more than now.
  int64_t GrowthAt(int64_t t) const {
    int64_t below = 0;  // those whose b < T - s
    for (auto i = static_cast<size_t>(t_ - t % t_); i > 0; i -= i & (~i + 1)) below += counts_[i];
    return whole_ + count_ * (t / t_) + count_ - below;
  }
  int64_t returns() const { return returns_; }

 private:
  const int64_t t_;
  int64_t whole_ = 0, count_ = 0, returns_ = 0;
  std::vector<int32_t> counts_;  // of b, as a Fenwick tree
};

MemoryForecast::MemoryForecast(int page_tokens) : page_tokens_(page_tokens) {}

int64_t MemoryForecast::Lacking(const Demand& d) const {
  const int64_t last = std::max(0, d.tokens + d.left - 1);
  return std::max<int64_t>(0, (last + page_tokens_ - 1) / page_tokens_ - d.held);
}

void MemoryForecast::Add(const Demand& d) {
  lacking_ += Lacking(d);
  if (d.stalled) {
    stalled_ += Lacking(d);
    return;
  }
  returns_ += d.returns;
  const auto at = std::upper_bound(demands_.begin(), demands_.end(), d.left,
                                   [](int left, const Demand& e) { return left > e.left; });
  demands_.insert(at, d);
}

int64_t MemoryForecast::Peak(const Demand* more) const {
  Alive alive(page_tokens_);
  const int64_t returns = returns_ + (more != nullptr ? more->returns : 0);
  int64_t peak = 0;
  const auto add = [&](const Demand& d) {
    if (d.left == 0) return;
    alive.Add(d);
    peak = std::max(peak, alive.GrowthAt(d.left) - (returns - alive.returns()));
  };
  for (const Demand& d : demands_) {
    if (more != nullptr && more->left >= d.left) {
      add(*more);
      more = nullptr;
    }
    add(d);
  }
  if (more != nullptr) add(*more);
  return peak + stalled_;
}

bool MemoryForecast::Fits(const Demand& demand, int64_t available) const {
  if (lacking_ + Lacking(demand) <= available) return true;
  return Peak(&demand) <= available;
}

int64_t MemoryForecast::Needed() const { return std::min(lacking_, Peak(nullptr)); }

MemoryForecast::Opening MemoryForecast::WhenFree(int64_t pages, int64_t available) const {
  Opening first{.steps = std::numeric_limits<int64_t>::max()};
  Alive alive(page_tokens_);
  const int64_t room = available - stalled_ - pages;
  if (demands_.empty() && room >= 0) return {.steps = 0, .spare = room};
  int64_t spare = room + returns_;  // while all that is alive goes on to its end
  for (size_t i = 0; i < demands_.size();) {
    const int64_t left = demands_[i].left;
    // Right after those of this length have ended.
    const int64_t now = room - alive.GrowthAt(left) + (returns_ - alive.returns());
    spare = std::min(spare, now);
    if (spare < 0) break;  // nor earlier
    first = {.steps = left, .spare = spare};
    for (; i < demands_.size() && demands_[i].left == left; ++i) {
      if (left > 0) alive.Add(demands_[i]);
    }
    if (left > 0) {
      spare = std::min(spare, room - alive.GrowthAt(left) + (returns_ - alive.returns()));
    }
  }
  return first;
}

}  // namespace lorad
