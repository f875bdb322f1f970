#include "scheduler/safe_state.h"

#include <algorithm>

namespace lorad {

size_t SafeState::Add(int64_t needs, int64_t returns) {
  claims_.push_back({needs, returns});
  needs_ += needs;
  return claims_.size() - 1;
}

bool SafeState::IsSafe(int64_t available) const {
  if (needs_ <= available) return true;
  // What is available only grows, so whoever needs least may as well go first.
  std::vector<Claim> order = claims_;
  std::sort(order.begin(), order.end(),
            [](const Claim& a, const Claim& b) { return a.needs < b.needs; });
  for (const Claim& claim : order) {
    if (claim.needs > available) return false;
    available += claim.returns;
  }
  return true;
}

bool SafeState::IsSafeAfterGiving(size_t sequence, int64_t pages, int64_t available) const {
  if (needs_ <= available) return pages <= available;
  SafeState after = *this;
  after.Give(sequence, pages);
  return pages <= available && after.IsSafe(available - pages);
}

void SafeState::Give(size_t sequence, int64_t pages) {
  claims_[sequence].needs -= pages;
  claims_[sequence].returns += pages;
  needs_ -= pages;
}

}  // namespace lorad
